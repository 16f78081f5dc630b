"""The checks of `nla doctor`: an engine's streams and explanations beside transformers', each with a figure and the bound it has to keep.

Figures of streams are the largest relative error over tokens, |engine - transformers| / |transformers| in L2 norms.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nla.activations.mean_vector import NEUTRAL_TEXTS
from nla.activations.stream_error import BOUNDS, largest_error
from nla.doctor.engines import GREEDY, Engine, Streams
from nla.doctor.reference import greedy_replies, hidden_states
from nla.models.loaded import LoadedModel
from nla.pair.known import KNOWN, hub_id
from nla.support.errors import ConfigError, HarnessError
from nla.support.seeds import seeded_generator
from nla.verbalizers.av import ActivationVerbalizer
from nla.verbalizers.av import build as build_av
from nla.verbalizers.base import Explanation

STOPPED = ("could not start", "could not go on")
"""Checks of an engine that could not be examined, or not to the end."""
_N_ROWS, _ROW_TOKENS = 6, 48
_PUSH = 0.2
"""Norm of the steering vector, as a share of the stream's median norm."""
_WORDS = 4
"""In half precision, explanations may drift apart after these first words."""


@dataclass(frozen=True)
class Finding:
    """The result of one check of one engine: the measured figure, and the bound that it has to keep, as text."""

    engine: str
    check: str
    figure: str
    bound: str
    passed: bool | None
    """None where the check could not be made."""

    @property
    def verdict(self) -> str:
        """The finding in one or two words."""
        return "not run" if self.passed is None else "ok" if self.passed else "WRONG"


@dataclass(frozen=True)
class Truth:
    """What transformers computes for a model, to compare engines with.

    `rows` are the token ids of the texts; `streams` holds one `[pos, d_model]` per text, by layer; `replies` are the AV's greedy
    explanations of `vectors`.
    """

    rows: list[list[int]]
    layers: list[int]
    streams: dict[int, Streams]
    block: int
    """The block after which the steering vector is added; `steered` is read after the last of `layers`."""
    steering_vector: Float[Tensor, " d_model"]
    steered: Streams
    vectors: Float[Tensor, "n d_model"]
    replies: list[Explanation]
    """Empty where no pair is named or known."""


def truth_of(model: LoadedModel, nla: str | None) -> Truth:
    """Compute the truth for a model, and for the AV of a pair where one is named or known.

    Raises:
        ContractError, FetchError: the pair that is named cannot be used.
        ConfigError: the model has fewer than two blocks.
    """
    if model.n_layers < 2:
        raise ConfigError(f"{model.source.name} has one block; expected at least two.")
    rows = [row[: _ROW_TOKENS - 7 * i] for i, row in enumerate(map(model.tokenizer.encode, NEUTRAL_TEXTS[:_N_ROWS]))]
    av = _av(model, nla)
    last = model.n_layers - 2  # transformers returns the last block's output after the final norm
    read = min(av.layer if av else model.default_layer, last)
    block = read // 2
    streams = hidden_states(model, rows, sorted({0, block, read}))
    norm = torch.cat(streams[block]).norm(dim=-1).median()
    draw = torch.from_numpy(seeded_generator("doctor", "push").standard_normal(model.d_model)).float()
    vector = draw / draw.norm() * norm * _PUSH
    vectors = torch.stack([stream[-1] for stream in streams[read]])
    replies = [] if av is None else [av.explanation(ids) for ids in greedy_replies(av, vectors)]
    steered = hidden_states(model, rows, [read], (block, vector))[read]
    return Truth(rows, sorted({0, read}), streams, block, vector, steered, vectors, replies)


def _av(model: LoadedModel, nla: str | None) -> ActivationVerbalizer | None:
    return None if nla is None and hub_id(model) not in KNOWN else build_av(model, None, nla, **GREEDY)


def examine(name: str, engine: Engine, model: LoadedModel, truth: Truth, nla: str | None) -> Iterator[Finding]:
    """Yield the findings about an engine, one by one. If a check raises a `HarnessError`, its message becomes the last finding, and the
    engine is not examined further. Other exceptions are passed on."""
    bound = BOUNDS[model.precision.dtype]
    try:
        for layer in truth.layers:
            error = largest_error(engine.read(truth.rows, layer), truth.streams[layer])
            yield Finding(name, f"stream after block {layer}", f"{error:.1e}", f"{bound:.0e}", error <= bound)
        last = truth.layers[-1]
        error = largest_error(engine.read_steered(truth.rows, last, truth.block, truth.steering_vector), truth.steered)
        yield Finding(name, f"the same, steered after block {truth.block}", f"{error:.1e}", f"{bound:.0e}", error <= bound)
        if not truth.replies:
            yield Finding(name, "greedy explanations", "no pair is known", "", None)
        else:
            yield _compared(name, engine.explain(truth.vectors, nla), truth.replies, exact=model.precision.dtype == torch.float32)
    except HarnessError as ex:
        yield Finding(name, STOPPED[1], str(ex), "", None)


def _compared(name: str, explanations: list[Explanation], expected: list[Explanation], *, exact: bool) -> Finding:
    """Compare texts: all equal in float32, equal first words in half precision."""
    pairs = list(zip(explanations, expected, strict=True))
    same = sum(a == b for a, b in pairs)
    alike = sum(a.text.split()[:_WORDS] == b.text.split()[:_WORDS] for a, b in pairs)
    bound = f"{len(pairs)}" if exact else f"first {_WORDS} words of {len(pairs)}"
    figure = f"{same} of {len(pairs)} equal" if exact else f"{same} of {len(pairs)} equal, first words of {alike}"
    return Finding(name, "greedy explanations", figure, bound, (same if exact else alike) == len(pairs))
