"""Load models and keep them in memory, with one copy of each model's weights per process."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from nla.kernels.attention import IMPLEMENTATION
from nla.kernels.compute_thread import compute, keep_freed_memory
from nla.kernels.packed_linear import pack_linears
from nla.kernels.rotary import rope_switch, separate_rows
from nla.models.architectures import Architecture, architecture_of, check_architecture, default_layer, module_at
from nla.models.chat_template import template_record
from nla.models.opening import check_config, check_loaded, check_weights, opening
from nla.models.precision import Precision, resolve_device, resolve_precision
from nla.models.several_devices import device_map, devices_of, send_along
from nla.models.sources import ModelSource, organism_folder, resolve_source
from nla.models.stop_tokens import stop_ids
from nla.support.display import visible
from nla.support.errors import ConfigError

T = TypeVar("T")
P = ParamSpec("P")


@dataclass(frozen=True)
class AdapterIdentity:
    """Which adapter is on a model."""

    name: str
    """An organism's name, or the folder or hub id that the user gave."""
    digest: str
    """The first digits of the SHA-256 of its config and weights."""


@dataclass(eq=False)
class LoadedModel:
    """A model in memory, with the properties of it that the harness uses.

    Layer convention: layer K is the output of decoder block K (0-based), transformers' `hidden_states[K + 1]`, before the final norm.
    All code must run the network through `run`, so that generation, capture and verbalizers do not use a model at the same time.
    """

    source: ModelSource
    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    precision: Precision
    lock: threading.RLock = field(default_factory=threading.RLock)
    """Held while the network runs on a GPU. On a CPU, `nla.kernels.compute_thread.compute` runs one network at a time."""
    steering: Any = None
    """The `nla.activations.steering.Steering` applied to this view of the weights, if any."""
    unsteered: "LoadedModel | None" = None
    """For a steered view, the model without steering."""
    adapter: AdapterIdentity | None = None
    """The adapter on this view of the weights, if any (`nla.models.adapted`). A role of an autoencoder has none."""
    unadapted: "LoadedModel | None" = None
    """For a view with an adapter, the base model."""
    reader: Any = None
    """The `nla.activations.engine_reader.EngineReader` that reads this view's transcripts in place of the built-in engine, if any."""
    unread: "LoadedModel | None" = None
    """For a view that another engine reads, the same model without that engine."""

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
        """Run `work` while no other code uses the network, and return its result.

        On a CPU, `nla.kernels.compute_thread.compute` runs it, usually on the process's one compute thread. `work` must set gradient
        modes (`torch.no_grad`) itself, because they apply to one thread only.

        Raises:
            Exception: whatever `work` raised.
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
        """The layer that is read where none is named (`nla.models.architectures.default_layer`)."""
        return default_layer(self.n_layers)

    @property
    def max_positions(self) -> int:
        """Length of the context window in tokens."""
        return int(self.text_config.max_position_embeddings)

    @property
    def device(self) -> torch.device:
        """Device of the embedding, to which inputs are moved."""
        return self.network.device

    @cached_property
    def rope_switch(self) -> int | None:
        """The sequence length above which the rotary frequencies change (longrope), or None where they never do."""
        return rope_switch(self.text_config)

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Token ids that end a turn: those of the generation config, the tokenizer and the chat template together."""
        return stop_ids(self.tokenizer, self.network.generation_config, self.network.config)

    def check_layer(self, layer: int | None) -> int:
        """Return the layer to read: `layer`, or the default layer for None.

        Raises:
            ConfigError: `layer` is not an integer, or the model has no such block.
        """
        if layer is None:
            return self.default_layer
        if isinstance(layer, bool) or not isinstance(layer, int) or not 0 <= layer < self.n_layers:
            raise ConfigError(
                f"Layer {str(layer)[:40]} is out of range: {self.source.name} has blocks 0 to {self.n_layers - 1}. "
                f"Give an integer in this range; the default is {self.default_layer}."
            )
        return layer

    @property
    def plain(self) -> "LoadedModel":
        """The model without steering. It keeps the adapter of an organism, which is the model that is measured."""
        return self.unsteered or self

    @property
    def base(self) -> "LoadedModel":
        """The model without steering and without an adapter, from which verbalizers are built."""
        base = self.plain.unadapted or self.plain
        return base.unread or base

    @property
    def place(self) -> dict[str, Any]:
        """The arguments of `load_model` that put another model of the same dtype where this one is: on its device, or over all GPUs."""
        where = {"spread": True} if len(devices_of(self.network)) > 1 else {"device": str(self.device)}
        return {"dtype": self.precision.name, **where}

    def describe(self) -> dict[str, Any]:
        """Return what logs record about the weights in use."""
        return {
            "model": self.source.name,
            "location": self.source.location,
            "revision": self.source.revision,
            "dtype": self.precision.name,
            "dtype_reason": self.precision.reason,
            "device": ", ".join(map(str, devices_of(self.network))) if self.device.type == "cuda" else str(self.device),
            "n_layers": self.n_layers,
            "d_model": self.d_model,
            "adapter": self.adapter.name if self.adapter else None,
            "adapter_digest": self.adapter.digest if self.adapter else None,
            "steer": self.steering.spec if self.steering else None,
            "steer_unit": self.steering.unit if self.steering else None,
            "steer_digest": self.steering.digest if self.steering else None,
            **({"read_with": self.reader.name} if self.reader else {}),
            **template_record(self.tokenizer),
        }


def exclusive(function: Callable[Concatenate[LoadedModel, P], T]) -> Callable[Concatenate[LoadedModel, P], T]:
    """Decorate a function whose first argument is a model so that it runs through `LoadedModel.run`."""

    @wraps(function)
    def by_run(model: LoadedModel, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return model.run(partial(function, model, *args, **kwargs))

    return by_run


_loaded: dict[tuple[ModelSource, str, str, bool], LoadedModel] = {}


def load_model(
    name: str,
    *,
    dtype: str = "auto",
    device: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
    spread: bool = False,
) -> LoadedModel:
    """Load a model, or return the copy that is already in memory.

    Args:
        name: an alias of `ALIASES`, a shipped organism (`smollm2-aware`), a hub id, a local folder or a `.gguf` file.
        dtype: `auto`, `bfloat16`, `float16`, `float32` or `4bit` (see `nla.models.precision`).
        device: `auto` or a torch device name.
        revision: hub revision; None means the hub's default branch.
        trust_remote_code: whether Python code that comes with the model may run.
        spread: spread the blocks over all GPUs, for a model that one cannot hold. With fewer than two GPUs it changes nothing.

    Raises:
        ModelError: the name is unknown, the architecture is not supported, or the files cannot be read.
        FetchError: the hub or the package index could not deliver the files.
        ContractError: the adapter of an organism does not fit.
        ConfigError: an argument has the wrong type, or the dtype or device is invalid.
    """
    _check_arguments(name=name, dtype=dtype, device=device, revision=revision, trust_remote_code=trust_remote_code, spread=spread)
    if spread and device != "auto":
        raise ConfigError(f"A model is either on one device (device={visible(device, limit=40)}) or spread over all; leave one out.")
    spread = spread and torch.cuda.device_count() > 1
    source = resolve_source(name, revision)
    where = resolve_device(device)

    def load() -> LoadedModel:
        key = (source, dtype, "all" if spread else str(where), trust_remote_code)
        if key not in _loaded:
            _loaded[key] = _load(source, resolve_precision(dtype, where), None if spread else where, trust_remote_code)
        return _loaded[key]

    model = compute(load)
    organism = organism_folder(name)
    if organism is None:
        return model
    from nla.models.adapted import with_adapter  # it needs this module

    return with_adapter(model, str(organism), name)


def _check_arguments(**given: object) -> None:
    for name, value in given.items():
        kind = bool if name in ("trust_remote_code", "spread") else str
        if not isinstance(value, kind) and not (name == "revision" and value is None):
            expected = "True or False" if kind is bool else "text, e.g. 'smollm2'" if name == "name" else "text"
            raise ConfigError(f"load_model got {name}={str(value)[:40]!r} ({type(value).__name__}); expected {expected}.")


def _load(source: ModelSource, precision: Precision, device: torch.device | None, trust_remote_code: bool) -> LoadedModel:
    """Load a model onto a device; None spreads it over all GPUs."""
    transformers_logging.disable_progress_bar()
    if device is not None and device.type == "cpu":
        keep_freed_memory()
    common: dict[str, Any] = {"revision": source.revision, "trust_remote_code": trust_remote_code}
    if source.gguf_file:
        common["gguf_file"] = source.gguf_file
    with opening(source):
        architecture_of(check_config(source, common))
        config = AutoConfig.from_pretrained(source.location, **common)
        check_architecture(config)
        check_weights(source, config)
        placed: Any = str(device)
        if device is None:
            free = [torch.cuda.mem_get_info(gpu)[0] for gpu in range(torch.cuda.device_count())]
            placed = device_map(config, architecture_of(config.model_type), 0.6 if precision.four_bit else precision.dtype.itemsize, free)
        tokenizer = AutoTokenizer.from_pretrained(source.location, **common)
        options = precision.loading_options() | common | {"use_safetensors": None if source.gguf_file else True}
        read: Any = AutoModelForCausalLM.from_pretrained(source.location, device_map=placed, output_loading_info=True, **options)
        network: PreTrainedModel = read[0]
        check_loaded(source, network, tokenizer, read[1]["missing_keys"])
        network.eval().requires_grad_(False)
        if device is None:
            send_along(network, architecture_of(config.model_type))
        loaded = LoadedModel(source, network, tokenizer, precision)
        _ = loaded.blocks, loaded.embedding, loaded.final_norm, loaded.unembedding, loaded.stop_ids  # raises here if any is missing
    network.set_attn_implementation(IMPLEMENTATION)
    pack_linears(network)
    if loaded.rope_switch is not None:
        separate_rows(network, loaded.rope_switch)
    return loaded
