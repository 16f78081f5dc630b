"""Reading a model's transcripts in another engine than the built-in one: vLLM, in this process or behind a server.

The model stays loaded in the built-in engine, which the other measures use. Before the first transcript is read, both engines read the
same texts, under the model's steering and adapter, so that other weights, another block or a hook without effect show as a difference.
"""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from nla.activations.capture import readings, streams
from nla.activations.mean_vector import NEUTRAL_TEXTS
from nla.activations.stream_error import BOUNDS, largest_error
from nla.engine.hooked import HookedEngine
from nla.models.loaded import LoadedModel
from nla.support.errors import ConfigError
from nla.transcripts.tokens import TokenRef, Transcript

_N_TEXTS, _TEXT_TOKENS = 3, 48
"""Number of texts that both engines read first, and most tokens of each."""


class EngineReader:
    """Reads residual streams in another engine. Transcripts that several threads read at the same time run in one batch.

    Args:
        name: what messages and logs call the engine.
        start: starts the engine; called once, before the first read.
        adapter: folder of the adapter that the engine puts on the model; None where the model has none, or the engine holds it already.
    """

    def __init__(self, name: str, start: Callable[[], HookedEngine], adapter: Path | None = None) -> None:
        self.name = name
        self._start, self._adapter = start, adapter
        self._engine: HookedEngine | None = None
        self._checked: set[tuple[int, int]] = set()
        self._starting = threading.Lock()

    def prepare(self, model: LoadedModel, layer: int) -> None:
        """Start the engine, and compare its streams with the built-in engine's, once per model and layer.

        Raises:
            ConfigError: the engine cannot start, fails, or its streams differ.
        """
        with self._starting:
            if self._engine is None:
                self._engine = self._start()
            if (id(model), layer) not in self._checked:
                self._compare(self._engine, model, layer)
                self._checked.add((id(model), layer))

    def _compare(self, engine: HookedEngine, model: LoadedModel, layer: int) -> None:
        rows = [model.tokenizer.encode(text)[:_TEXT_TOKENS] for text in NEUTRAL_TEXTS[:_N_TEXTS]]
        by_row = dict(streams(model, rows, layer))
        error = largest_error(self._read(engine, model, rows, layer), [by_row[i] for i in range(len(rows))])
        bound = BOUNDS[model.precision.dtype]
        if not error <= bound:
            named = model.adapter.name if model.adapter else model.source.name
            raise ConfigError(
                f"The streams that {self.name} reads after block {layer} differ from those of {named} as it is loaded here: "
                f"relative error {error:.1e}, allowed {bound:.0e}. It may run other weights, another adapter or another "
                "dtype, or leave out the steering. Start it on the same model, or leave read_with out."
            )

    def _read(self, engine: HookedEngine, model: LoadedModel, rows: list[list[int]], layer: int) -> list[Float[Tensor, "_pos d_model"]]:
        added = {} if model.steering is None else dict(enumerate(model.steering.added))
        return engine.read(rows, layer, adapter=self._adapter, added=added)

    def vectors(self, model: LoadedModel, transcript: Transcript, tokens: Sequence[TokenRef], layer: int) -> Float[Tensor, "k d_model"]:
        """Return the residual stream after block `layer` at tokens of a transcript, in their order (float32, on the CPU).

        Args:
            model: the model, under its steering. `prepare` must have been called for it and for the layer.
            transcript: the transcript.
            tokens: the tokens to read.
            layer: the layer K.

        Raises:
            ConfigError: the engine failed, or a sequence is longer than the engine takes.
        """
        if not tokens:
            return torch.empty(0, model.d_model)
        assert self._engine is not None, "prepare() comes first"
        sequences = list(readings(model, transcript, tokens))
        read = self._read(self._engine, model, [ids for ids, _ in sequences], layer)
        at = {token: stream[token.position] for (_, within), stream in zip(sequences, read, strict=True) for token in within}
        return torch.stack([at[token] for token in tokens])
