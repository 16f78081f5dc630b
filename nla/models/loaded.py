"""Find, load and hold a model: aliases, hub ids, local folders and GGUF files, one copy of the weights a process."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from nla.kernels.attention import IMPLEMENTATION
from nla.kernels.compute_thread import compute, keep_freed_memory
from nla.kernels.packed_linear import pack_linears
from nla.models.architectures import Architecture, architecture_of, module_at
from nla.models.precision import Precision, resolve_device, resolve_precision
from nla.models.sources import Source, resolve_source, unreadable
from nla.support.errors import ConfigError

T = TypeVar("T")
P = ParamSpec("P")


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
    """Held while the network runs on a GPU; on a CPU `nla.kernels.compute_thread.compute` keeps all networks apart."""
    steering: Any = None
    """The `nla.activations.steering.Steering` this view of the weights is under, if any."""
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

        On a CPU it is done where `nla.kernels.compute_thread.compute` says, in the process' one compute thread as a rule.

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
        dtype: `auto`, `bfloat16`, `float16` or `float32` (see `nla.models.precision`).
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
        raise unreadable(source, ex) from ex
    network.eval().requires_grad_(False)
    loaded = LoadedModel(source, network, tokenizer, precision)
    _ = loaded.blocks, loaded.embedding, loaded.final_norm, loaded.unembedding  # a model that does not fit is refused at the door
    network.set_attn_implementation(IMPLEMENTATION)
    pack_linears(network)
    return loaded
