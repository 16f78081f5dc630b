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

from nla.activations.capture import readings, streams_in_order
from nla.activations.mean_vector import NEUTRAL_TEXTS
from nla.activations.stream_error import BOUNDS, largest_error
from nla.engine.hooked import HookedEngine
from nla.models.loaded import LoadedModel
from nla.support.errors import ConfigError, HarnessError
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
        self._verdicts: dict[tuple[LoadedModel, int], HarnessError | None] = {}
        self._starting = threading.Lock()

    def prepare(self, model: LoadedModel, layer: int) -> None:
        """Start the engine, and compare its streams with the built-in engine's, once per model and layer.

        What failed once is not tried again for the many transcripts that wait for it: they get the same error.

        Raises:
            ConfigError: the engine cannot start, or its streams differ.
            EngineError: the engine fails.
        """
        with self._starting:
            if (model, layer) not in self._verdicts:
                try:
                    self._engine = self._engine or self._start()
                    self._compare(self._engine, model, layer)
                    self._verdicts[model, layer] = None
                except HarnessError as ex:
                    self._verdicts[model, layer] = ex
            verdict = self._verdicts[model, layer]
        if verdict is not None:
            raise verdict

    def _compare(self, engine: HookedEngine, model: LoadedModel, layer: int) -> None:
        rows = [model.tokenizer.encode(text)[:_TEXT_TOKENS] for text in NEUTRAL_TEXTS[:_N_TEXTS]]
        read = self._read(engine, model, rows, layer)
        error, bound = _error(read, model, rows, layer), BOUNDS[model.precision.dtype]
        # In half precision, a weak steering may be smaller than the bound: then the streams must not be nearer to those without it.
        without = model.unsteered or model.unadapted
        nearer = without is not None and _error(read, without, rows, layer) <= error
        if nearer or not error <= bound:
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
            ConfigError: a sequence is longer than the engine takes.
            EngineError: the engine failed.
        """
        if not tokens:
            return torch.empty(0, model.d_model)
        assert self._engine is not None, "prepare() comes first"
        sequences = list(readings(model, transcript, tokens))
        read = self._read(self._engine, model, [ids for ids, _ in sequences], layer)
        at = {token: stream[token.position] for (_, within), stream in zip(sequences, read, strict=True) for token in within}
        return torch.stack([at[token] for token in tokens])


def _error(read: Sequence[Float[Tensor, "_pos d_read"]], model: LoadedModel, rows: list[list[int]], layer: int) -> float:
    """Return the largest relative error of streams against the built-in engine's; infinite where they have another width."""
    if any(stream.shape[-1] != model.d_model for stream in read):
        return float("inf")
    return largest_error(read, streams_in_order(model, rows, layer))
