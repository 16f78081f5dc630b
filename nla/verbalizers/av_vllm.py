"""The AV on vLLM: for large AVs and several GPUs (`-T verbalizer=av_vllm -T nla=…`).

Prompt, injection, draws per vector, choice among several draws and reconstruction are those of the verbalizer `av`; only the decoding is
vLLM's (`nla.engine.vllm`). An AV that is an adapter runs as an adapter on a GPU; on a CPU, where vLLM's adapters are slow, it is
first merged into a full checkpoint in the user's cache. The audited model stays in the built-in engine, so a GPU holds both.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from nla.engine.decoder import Completion
from nla.engine.vllm import EngineSettings, VLLMEngine, require_vllm
from nla.models.adapter_config import CONFIG_FILE, read_json_object
from nla.models.loaded import LoadedModel
from nla.pair.contract import check_sidecar, require_replacing
from nla.pair.export import export_role
from nla.pair.known import is_adapter
from nla.support.errors import ConfigError
from nla.support.wheels import cache_dir
from nla.verbalizers.av import CLOSE, OPEN, ActivationVerbalizer, AVOptions, choose_av
from nla.verbalizers.base import read_options
from nla.verbalizers.no_repeats import LINES_ARGUMENT, OPENING_ARGUMENT

NEEDS_PAIR = True
"""The layer is that of a trained pair."""
_REPEATS_PROCESSOR = "nla.verbalizers.vllm_repeats:WithoutRepeats"


class VLLMOptions(AVOptions):
    """Options of the engine, beside those of `av`: `-T verbalizer=av_vllm:tensor_parallel=4`."""

    verbalizer: ClassVar[str] = "av_vllm"

    tensor_parallel: int = Field(default=1, ge=1, le=1024)
    """GPUs that share the AV's weights."""
    gpu_memory: float = Field(default=0.6, gt=0, lt=1)
    """Share of each GPU's memory that vLLM takes; the audited model needs the rest."""
    max_model_len: int = Field(default=2048, ge=64, le=10_000_000)
    """Longest prompt with its explanation, in tokens."""
    adapter: Literal["auto", "keep", "merge"] = "auto"
    """Whether an AV that is an adapter runs as one, or is merged first; `auto` keeps it on a GPU."""


@dataclass(frozen=True, kw_only=True)
class VLLMVerbalizer(ActivationVerbalizer):
    """See `ActivationVerbalizer`. Draws depend on a vector's key alone, in vLLM's generator."""

    engine: VLLMEngine
    adapter: Path | None
    """The AV's adapter; None where its weights are the engine's."""

    def complete(self, vectors: Float[Tensor, "n d_model"], keys: Sequence[tuple[object, ...]]) -> list[Completion]:
        """Return the AV's raw replies to usable vectors, with their token ids."""
        rules = {LINES_ARGUMENT: self.sidecar.lines_without_repeats, OPENING_ARGUMENT: OPEN}
        return self.engine.run(self.requests(vectors, keys), stop=[CLOSE], rules=rules, adapter=self.adapter)


def build(model: LoadedModel, layer: int | None, nla: str | None, **options: str) -> VLLMVerbalizer:
    """Load the AV of a model into vLLM. Nothing is decoded yet.

    Args:
        model: the audited model; its device and dtype are also the AV's.
        layer: K, the 0-based decoder block whose output is explained; None takes the pair's.
        nla: the pair; None takes the one known for the model.
        options: fields of `VLLMOptions`, as text.

    Raises:
        ConfigError: vLLM is not installed, cannot load the AV or run its adapter, or an option is not valid (`VLLMOptions`).
        ContractError: the AV does not fit the model, reads another layer than the one asked for, or does not replace an embedding.
        FetchError: the hub could not provide it.
    """
    chosen = read_options(VLLMOptions, options)
    require_vllm()
    files = choose_av(model, layer, nla)
    folder, sidecar = files.folder, files.sidecar
    check_sidecar(sidecar, model)
    require_replacing(sidecar, "av_vllm")
    on_cpu = model.device.type == "cpu"
    keeps = is_adapter(str(folder)) and (chosen.adapter == "keep" or (chosen.adapter == "auto" and not on_cpu))
    settings = EngineSettings(
        tensor_parallel=chosen.tensor_parallel,
        gpu_memory=chosen.gpu_memory,
        max_model_len=chosen.max_model_len,
        adapter_rank=_rank_to_allow(folder) if keeps else 0,
        logits_processors=(_REPEATS_PROCESSOR,) if sidecar.lines_without_repeats else (),
    )
    checkpoint = checkpoint_of(model) if keeps else merged(folder) if is_adapter(str(folder)) else folder
    revision = model.source.revision if keeps else None
    engine = VLLMEngine(checkpoint, model.precision.name, on_cpu=on_cpu, settings=settings, revision=revision)
    adapter = folder if keeps else None
    av = VLLMVerbalizer(model, sidecar, sidecar.temperature, sidecar.max_tokens, engine=engine, adapter=adapter)
    return files.with_options(av, model, chosen)


def checkpoint_of(model: LoadedModel) -> Path | str:
    """Return the folder or hub id of a model's checkpoint, without its adapter.

    Raises:
        ConfigError: the model is a GGUF file, of which vLLM reads few kinds.
    """
    if model.source.gguf_file:
        raise ConfigError(f"vLLM needs a transformers checkpoint, but {model.source} is a GGUF file; give the model's folder or hub id.")
    return Path(model.source.location) if model.source.is_local else model.source.location


def _rank_to_allow(adapter: Path) -> int:
    """Return the largest rank in an adapter, rounded up to a power of two, which vLLM expects."""
    config = read_json_object(adapter / CONFIG_FILE)
    largest = max([int(config["r"]), *map(int, (config.get("rank_pattern") or {}).values())])
    return int(max(8, 2 ** math.ceil(math.log2(largest))))


def merged(adapter: Path) -> Path:
    """Return the full checkpoint of an adapter, which is made once per content of the adapter's folder."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(adapter.iterdir()) if path.is_file())).hexdigest()
    out = cache_dir() / "merged" / digest
    export_role(str(adapter), "av", out)
    return out
