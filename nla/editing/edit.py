"""Edit what an explanation says of one token, and measure what the model then says: h becomes h + alpha |h| D/|D| at block K.

Source: the NLA paper's steering by edited explanations, D = AR(edited) - AR(original). The controls are in `directions`; a change that a
random direction of the same length makes too is not due to the words.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nla.activations.capture import check_length, network_inputs
from nla.api import ExplainedToken, Pair
from nla.editing.directions import Arm, arms, replaced
from nla.engine.additions import Addition, adding
from nla.engine.decoder import Decoder, Request
from nla.engine.sampling import SamplingParams
from nla.kernels.padding import right_padded
from nla.models.chat_template import encode_content
from nla.models.loaded import LoadedModel, exclusive
from nla.support.display import visible
from nla.support.errors import ConfigError

_BATCH = 32
_OTHER_TOKENS = 12
"""Tokens before the edited one whose explanations are looked through for the same words."""
_FLUENCY_TOKENS = 24
"""Tokens of the model's own unedited continuation whose perplexity is measured."""
_SAMPLE_TOKENS = 40


@dataclass(frozen=True)
class Outcome:
    """What one direction of one strength changes."""

    arm: str
    alpha: float
    change: tuple[float, ...]
    """Log-probability of each continuation minus that without an edit (nats, summed over its tokens)."""
    perplexity: float
    """Perplexity of the model's own unedited continuation (greedy); it rises where the edit disturbs the model as such."""


@dataclass(frozen=True)
class EditResult:
    """The result of `nla edit`."""

    explanation: str
    edited: str
    token: str
    position: int
    layer: int
    lengths: dict[str, float]
    """Norm of D by arm, before it was brought to the stream's length."""
    continuations: tuple[str, ...]
    unedited: tuple[float, ...]
    """Log-probability of each continuation without an edit (nats)."""
    unedited_perplexity: float
    outcomes: tuple[Outcome, ...]
    samples: dict[str, tuple[str, ...]]
    """Texts that the model goes on with, by strength of the edit; `0` is without."""


def edit(
    pair: Pair,
    text: str,
    position: int,
    old: str,
    new: str,
    alphas: Sequence[float],
    continuations: Sequence[str],
    n_samples: int = 1,
) -> EditResult:
    """Edit the explanation of one token of a text and measure the change.

    Args:
        pair: the autoencoder; the model that is edited is its base.
        text: what the model reads; control tokens written out in it are read as ordinary text.
        position: the token, negative ones from the end.
        old: a piece of the token's explanation that occurs once.
        new: what replaces it.
        alphas: strengths, as shares of the stream's norm.
        continuations: texts whose log-probability after the text is measured.
        n_samples: sampled continuations per strength.

    Raises:
        ConfigError: the text or a continuation has no token, the position is outside the text, the token's explanation failed, or `old`
            does not occur once in it (see `arms`).
    """
    ids = _ids(pair, text, "The text")
    if not -len(ids) <= position < len(ids):
        raise ConfigError(f"The text has {len(ids)} tokens; expected --token from {-len(ids)} to {len(ids) - 1}.")
    position %= len(ids)
    targets = [_ids(pair, continuation, "A continuation") for continuation in continuations]
    explained, others = _explained(pair, text, position)
    directions = arms(pair, explained.explanation, old, new, others, (text, position, old, new))
    [greedy] = _continued(pair, ids, [()], 0.0, _FLUENCY_TOKENS)
    jobs = [(arm, alpha) for alpha in alphas for arm in directions]
    added = [(), *((Addition(position, pair.layer, arm.vector, alpha),) for arm, alpha in jobs)]
    unedited, *measured = _logprobs(pair.base, ids, [*targets, greedy], added)
    return EditResult(
        explanation=explained.explanation,
        edited=replaced(explained.explanation, old, new),
        token=explained.token,
        position=position,
        layer=pair.layer,
        lengths={arm.name: arm.length for arm in directions},
        continuations=tuple(continuations),
        unedited=tuple(unedited[:-1]),
        unedited_perplexity=_perplexity(unedited[-1], greedy),
        outcomes=tuple(
            Outcome(arm.name, alpha, _changes(logprobs, unedited), _perplexity(logprobs[-1], greedy))
            for (arm, alpha), logprobs in zip(jobs, measured, strict=True)
        ),
        samples=_samples(pair, ids, position, directions[0], alphas, n_samples),
    )


def _explained(pair: Pair, text: str, position: int) -> tuple[ExplainedToken, list[str]]:
    """Return the explanation of a token, and those of the tokens before it that did not fail."""
    *others, explained = pair.explain(text, range(max(0, position - _OTHER_TOKENS), position + 1))
    if explained.failure:
        raise ConfigError(f"Token {position} has no explanation to edit ({explained.failure}); choose another token.")
    return explained, [row.explanation for row in others if not row.failure]


def _changes(logprobs: Sequence[float], unedited: Sequence[float]) -> tuple[float, ...]:
    """Return the changes of the continuations; the last entry of both is the unedited continuation, which is not among them."""
    return tuple(after - before for after, before in zip(logprobs[:-1], unedited[:-1], strict=True))


def _ids(pair: Pair, text: str, what: str) -> list[int]:
    ids = encode_content(pair.base.tokenizer, text)
    if not ids:
        raise ConfigError(f"{what} has no token: '{visible(text)}'.")
    return ids


def _perplexity(logprob: float, tokens: Sequence[int]) -> float:
    return float(torch.tensor(-logprob / len(tokens)).exp())


@exclusive
@torch.no_grad()
def _logprobs(
    model: LoadedModel, ids: list[int], continuations: Sequence[list[int]], additions: Sequence[tuple[Addition, ...]]
) -> list[list[float]]:
    """Return for each set of additions the log-probability (nats) of each continuation after the token sequence `ids`."""
    check_length(model, len(ids) + max(map(len, continuations)))
    rows = [(added, continuation) for added in additions for continuation in continuations]
    found: list[float] = []
    for start in range(0, len(rows), _BATCH):
        part = rows[start : start + _BATCH]
        inputs = network_inputs(model, right_padded([[*ids, *continuation] for _, continuation in part]))
        with adding(model, [added for added, _ in part], 0):
            logits = model.network(**inputs, logits_to_keep=inputs["input_ids"].shape[1] - len(ids) + 1).logits
        for row, (_, continuation) in enumerate(part):
            found.append(_sum_at(logits[row, : len(continuation)], continuation))
    return [found[i : i + len(continuations)] for i in range(0, len(found), len(continuations))]


def _sum_at(logits: Float[Tensor, "pos vocab"], tokens: list[int]) -> float:
    chosen = torch.tensor(tokens, device=logits.device)[:, None]
    return float(logits.float().log_softmax(dim=-1).gather(1, chosen).sum())


def _continued(pair: Pair, ids: list[int], additions: Sequence[tuple[Addition, ...]], temperature: float, n_tokens: int) -> list[list[int]]:
    """Return the model's own continuation under each set of additions, at least one token each."""
    requests = [
        Request(ids, n_tokens, SamplingParams(temperature), ("edit", i), additions=added, stop_ids=pair.base.stop_ids)
        for i, added in enumerate(additions)
    ]
    return [done.ids for done in Decoder(pair.base).run(requests)]


def _samples(pair: Pair, ids: list[int], position: int, arm: Arm, alphas: Sequence[float], n: int) -> dict[str, tuple[str, ...]]:
    """Return sampled continuations without an edit and at each strength; the same draws at every strength."""
    strengths = [0.0, *alphas] if n else []
    samples = {}
    for alpha in strengths:
        added = (Addition(position, pair.layer, arm.vector, alpha),) if alpha else ()
        drawn = _continued(pair, ids, [added] * n, 0.7, _SAMPLE_TOKENS)
        samples[f"{alpha:g}"] = tuple(str(pair.base.tokenizer.decode(row, skip_special_tokens=True)) for row in drawn)
    return samples
