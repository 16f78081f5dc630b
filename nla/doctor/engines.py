"""The engines that `nla doctor` examines, each with the same three abilities: read, read under steering, and explain."""

import gc
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor

from nla.activations.capture import streams_in_order
from nla.activations.steering import steered
from nla.engine.vllm import EngineSettings, VLLMEngine
from nla.instrument import CONTRAST
from nla.models.loaded import LoadedModel
from nla.support.errors import ConfigError
from nla.verbalizers.av import build as build_av
from nla.verbalizers.av_vllm import build as build_av_vllm
from nla.verbalizers.av_vllm import checkpoint_of
from nla.verbalizers.base import Explanation

Streams = list[Float[Tensor, "pos d_model"]]
GREEDY = {"temperature": "0", "reconstruct": "false"}
"""Options of a verbalizer under examination: texts that depend on nothing but the vectors."""


class Engine(Protocol):
    """An engine under examination."""

    def read(self, rows: Sequence[Sequence[int]], layer: int) -> Streams:
        """Return the residual stream after block `layer` of each sequence."""
        ...

    def read_steered(self, rows: Sequence[Sequence[int]], layer: int, block: int, vector: Float[Tensor, " d_model"]) -> Streams:
        """Return the same while a vector is added to the output of a block at every token."""
        ...

    def explain(self, vectors: Float[Tensor, "n d_model"], nla: str | None) -> list[Explanation]:
        """Return an AV's greedy explanations."""
        ...


class BuiltIn:
    """The engine of this project, with batches, shared prefixes and ragged rows."""

    def __init__(self, model: LoadedModel) -> None:
        self._model = model

    def read(self, rows: Sequence[Sequence[int]], layer: int) -> Streams:
        """See `Engine`."""
        return streams_in_order(self._model, rows, layer)

    def read_steered(self, rows: Sequence[Sequence[int]], layer: int, block: int, vector: Float[Tensor, " d_model"]) -> Streams:
        """See `Engine`. The vector comes from a file, as a user's does."""
        directions = torch.zeros(self._model.n_layers, len(vector))
        directions[block] = vector
        with TemporaryDirectory() as folder:
            path = Path(folder) / "directions.safetensors"
            save_file({"directions": directions}, path)
            view = steered(self._model, f"{path}:1", CONTRAST)
        return streams_in_order(view, rows, layer)

    def explain(self, vectors: Float[Tensor, "n d_model"], nla: str | None) -> list[Explanation]:
        """See `Engine`."""
        return build_av(self._model, None, nla, **GREEDY).verbalize(vectors, [(i,) for i in range(len(vectors))])


class VLLM:
    """vLLM with vllm-lens (`nla.engine.vllm`). The model's own weights and the AV's are loaded one after the other."""

    def __init__(self, model: LoadedModel) -> None:
        if model.adapter is not None:
            raise ConfigError("a model with an adapter is not examined in vLLM; name its base model")
        self._model = model

    @cached_property
    def _engine(self) -> VLLMEngine:
        on_cpu = self._model.device.type == "cpu"
        source, settings = self._model.source, EngineSettings(max_model_len=512)
        checkpoint = checkpoint_of(self._model)
        return VLLMEngine(checkpoint, self._model.precision.name, on_cpu=on_cpu, settings=settings, revision=source.revision)

    def read(self, rows: Sequence[Sequence[int]], layer: int) -> Streams:
        """See `Engine`."""
        return self._engine.read(rows, layer)

    def read_steered(self, rows: Sequence[Sequence[int]], layer: int, block: int, vector: Float[Tensor, " d_model"]) -> Streams:
        """See `Engine`."""
        return self._engine.read(rows, layer, added={block: vector})

    def explain(self, vectors: Float[Tensor, "n d_model"], nla: str | None) -> list[Explanation]:
        """See `Engine`."""
        self.__dict__.pop("_engine", None)  # frees its memory
        gc.collect()
        av = build_av_vllm(self._model, None, nla, max_model_len="512", **GREEDY)
        return av.verbalize(vectors, [(i,) for i in range(len(vectors))])


ENGINES: dict[str, type[BuiltIn] | type[VLLM]] = {"built-in": BuiltIn, "vllm": VLLM}
