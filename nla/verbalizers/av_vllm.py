"""The AV on vLLM: for large AVs and several GPUs (`-T verbalizer=av_vllm -T nla=…`).

Prompt, injection, number of draws per vector, choice among the draws and reconstruction are those of the verbalizer `av`. vLLM decodes, in
this process or behind a server, and vectors of several transcripts run in one batch. An AV that is an adapter runs as an adapter on a GPU,
and its AR beside it on the same weights; on a CPU, where vLLM's adapters are slow, the AV is first merged into a full checkpoint in the
user's cache. The audited model stays in the built-in engine, so the GPU must hold both.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from nla.engine.decoder import Completion
from nla.engine.hooked import HookedEngine
from nla.engine.vllm_options import EngineOptions
from nla.models.adapter_config import CONFIG_FILE, read_json_object
from nla.models.loaded import LoadedModel
from nla.pair.contract import Role, check_sidecar, read_sidecar, require_replacing
from nla.pair.engine_reconstructor import EngineReconstructor
from nla.pair.export import export_role
from nla.pair.known import is_adapter, role_folder
from nla.pair.reconstructor import Reconstructor, load_reconstructor, read_head
from nla.support.errors import ConfigError
from nla.support.wheels import cache_dir
from nla.verbalizers.av import CLOSE, OPEN, ActivationVerbalizer, AVOptions, ChosenAV, choose_av
from nla.verbalizers.base import read_options
from nla.verbalizers.no_repeats import LINES_ARGUMENT, OPENING_ARGUMENT, repeats

NEEDS_PAIR = True
"""The layer is that of a trained pair."""
_REPEATS_PROCESSOR = "nla.verbalizers.vllm_repeats:WithoutRepeats"


class VLLMOptions(AVOptions, EngineOptions):
    """Options of vLLM, beside those of `av`: `-T verbalizer=av_vllm:tensor_parallel=4`."""

    verbalizer: ClassVar[str] = "av_vllm"

    adapter: Literal["auto", "keep", "merge"] = "auto"
    """Whether an AV that is an adapter runs as one (`keep`), or is merged first; `auto` keeps it on a GPU. No effect with a server."""
    ar: Literal["auto", "vllm", "built-in"] = "auto"
    """Where the AR runs; `auto` takes vLLM where the AR runs there as an adapter beside the AV, or `ar_base_url` is given."""
    ar_base_url: str | None = None
    """Address of a vLLM server that serves the AR."""
    ar_served: str | None = None
    """The name under which that server serves the AR; None takes the one that fits."""

    @property
    def asks_for_ar(self) -> bool:
        """See `AVOptions`. Whoever says where the AR is to run wants it."""
        return super().asks_for_ar or (self.reconstruct == "auto" and (self.ar == "vllm" or self.ar_base_url is not None))

    def check(self, dtype: str) -> None:
        """See `EngineOptions`."""
        if self.base_url is not None and self.adapter != "auto":
            raise ConfigError(f"adapter={self.adapter} would change nothing with base_url: the server has the AV as it was started.")
        if self.ar_base_url is not None and (self.ar == "built-in" or self.reconstruct == "false"):
            raise ConfigError(
                "ar_base_url names a server for the AR, but ar=built-in or reconstruct=false leaves it out; give one of them."
            )
        if self.base_url is not None and self.ar == "vllm" and self.ar_base_url is None:
            raise ConfigError(
                "ar=vllm with base_url needs a server for the AR too: give ar_base_url=http://127.0.0.1:8001, or leave ar out."
            )
        super().check(dtype)
        if self.ar_base_url is not None:
            self.ar_engine.check(dtype)

    @property
    def ar_engine(self) -> EngineOptions:
        """The options of an engine of the AR's own."""
        return EngineOptions(base_url=self.ar_base_url, served=self.ar_served) if self.ar_base_url else self


@dataclass(frozen=True, kw_only=True)
class VLLMVerbalizer(ActivationVerbalizer):
    """See `ActivationVerbalizer`. Draws depend on a vector's key alone, and come from vLLM's generator."""

    engine: HookedEngine
    adapter: Path | None
    """Folder of the AV's adapter; None where the engine holds the AV's own weights."""

    def complete(self, vectors: Float[Tensor, "n d_model"], keys: Sequence[tuple[object, ...]]) -> list[Completion]:
        """Return the AV's raw replies to usable vectors, with their token ids."""
        lines = self.sidecar.lines_without_repeats
        rules = {LINES_ARGUMENT: lines, OPENING_ARGUMENT: OPEN}
        completions = self.engine.run(self.requests(vectors, keys), stop=[CLOSE], rules=rules, adapter=self.adapter)
        if lines and any(repeats(self.spellings, OPEN, lines, completion.ids) for completion in completions):
            raise ConfigError(
                f"vLLM lets the AV repeat words in a line, which its sidecar forbids. Start the server with --logits-processors "
                f"{_REPEATS_PROCESSOR}, in an environment that holds this package."
            )
        return completions


def build(model: LoadedModel, layer: int | None, nla: str | None, **options: str) -> VLLMVerbalizer:
    """Load the AV of a model into vLLM, or connect to the server that serves it. Nothing is decoded yet.

    Args:
        model: the audited model; its device and dtype are also the AV's.
        layer: K, the 0-based decoder block whose output is explained; None takes the pair's.
        nla: the pair; None takes the one known for the model.
        options: fields of `VLLMOptions`, as text.

    Raises:
        ConfigError: vLLM is not installed, cannot load the AV or run its adapter, the server serves another model, or an option is not
            valid (`VLLMOptions`).
        ContractError: the AV does not fit the model, reads another layer than the one asked for, or does not replace an embedding.
        FetchError: the hub could not provide it.
    """
    chosen = read_options(VLLMOptions, options)
    chosen.check(model.precision.name)
    files = choose_av(model, layer, nla)
    folder, sidecar = files.folder, files.sidecar
    check_sidecar(sidecar, model)
    require_replacing(sidecar, "av_vllm")
    keeps = chosen.base_url is None and _keeps(model, folder, chosen)
    engine = _engine_of_av(model, files, chosen, keeps=keeps)
    adapter = folder if keeps else None
    av = VLLMVerbalizer(model, sidecar, sidecar.temperature, sidecar.max_tokens, engine=engine, adapter=adapter)
    return files.with_options(av, chosen, partial(_reconstructor, model, chosen, engine if keeps else None))


def _keeps(model: LoadedModel, folder: Path, chosen: VLLMOptions) -> bool:
    """Return whether an AV runs as an adapter of its base model."""
    on_gpu = model.device.type != "cpu"
    return is_adapter(str(folder)) and (chosen.adapter == "keep" or (chosen.adapter == "auto" and on_gpu))


def _engine_of_av(model: LoadedModel, files: ChosenAV, chosen: VLLMOptions, *, keeps: bool) -> HookedEngine:
    folder, ranks = files.folder, [rank_to_allow(files.folder)] if keeps else [0]
    shares_weights = keeps and files.ar is not None and is_adapter(files.ar)
    if shares_weights:
        ranks.append(rank_to_allow(role_folder(str(files.ar), "ar")))
    two_engines = chosen.ar == "vllm" and chosen.ar_base_url is None and not shares_weights
    merges = chosen.base_url is None and not keeps and is_adapter(str(folder))
    return chosen.start(
        checkpoint_of(model) if keeps else merged(folder, "av", model.precision.name) if merges else folder,
        model.precision.name,
        on_cpu=model.device.type == "cpu",
        revision=model.source.revision if keeps else None,
        adapter_rank=max(ranks),
        logits_processors=[_REPEATS_PROCESSOR] if files.sidecar.lines_without_repeats else [],
        expected=(files.where, folder),
        memory_share=0.5 if two_engines else 1.0,
    )


def _reconstructor(model: LoadedModel, chosen: VLLMOptions, shared: HookedEngine | None, ar: str) -> Reconstructor:
    """Load the AR of a pair: into vLLM or the built-in engine, as the user chose. `shared` runs the base model with the AV's adapter."""
    kept = shared is not None and is_adapter(ar) and not chosen.ar_base_url
    if chosen.ar == "built-in" or not (chosen.ar == "vllm" or kept or chosen.ar_base_url):
        return load_reconstructor(ar, model, **model.place)
    folder = role_folder(ar, "ar")
    sidecar, head = read_sidecar(folder), read_head(folder)
    if kept and shared is not None:
        return EngineReconstructor(model, head, sidecar, shared, folder)
    given = chosen.ar_engine
    checkpoint = merged(folder, "ar", model.precision.name) if given.base_url is None and is_adapter(ar) else folder
    on_cpu = model.device.type == "cpu"
    engine = given.start(checkpoint, model.precision.name, on_cpu=on_cpu, expected=(ar, folder), memory_share=0.5)
    return EngineReconstructor(model, head, sidecar, engine, None)


def checkpoint_of(model: LoadedModel) -> Path | str:
    """Return the folder or hub id of a model's checkpoint, without its adapter.

    Raises:
        ConfigError: the model is a GGUF file, of which vLLM reads few kinds.
    """
    if model.source.gguf_file:
        raise ConfigError(f"vLLM needs a transformers checkpoint, but {model.source} is a GGUF file; give the model's folder or hub id.")
    return Path(model.source.location) if model.source.is_local else model.source.location


def rank_to_allow(adapter: Path) -> int:
    """Return the largest rank in an adapter, rounded up to a power of two of at least 8, as vLLM expects."""
    config = read_json_object(adapter / CONFIG_FILE)
    largest = max([int(config["r"]), *map(int, (config.get("rank_pattern") or {}).values())])
    return int(max(8, 2 ** math.ceil(math.log2(largest))))


def merged(adapter: Path, role: Role, dtype: str) -> Path:
    """Return the folder of the full checkpoint of a role that is an adapter. It is made once per dtype and content of the adapter."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(adapter.iterdir()) if path.is_file())).hexdigest()
    out = cache_dir() / "merged" / f"{digest}-{dtype}"
    export_role(str(adapter), role, out, dtype)
    return out
