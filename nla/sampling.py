"""Choosing the next token: seeded per row, so that a row's draws do not depend on what else is in the batch."""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

_CANDIDATES = 512
"""How many of the likeliest tokens are looked at first when top-p or top-k is asked for; a full sort only if they do not suffice."""


@dataclass(frozen=True)
class SamplingParams:
    """How to choose tokens. `temperature` 0 is greedy; `top_p` and `top_k` cut the distribution before the draw."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0


def seeded_generator(*key: object) -> np.random.Generator:
    """A random generator that depends on nothing but its key (any values with a stable `repr`)."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def choose_tokens(logits: Float[Tensor, "row vocab"], params: list[SamplingParams], uniforms: list[float]) -> list[int]:
    """The next token of each row, by inversion of its cumulative distribution at the row's uniform draw.

    Args:
        logits: float32 logits.
        params: one a row.
        uniforms: one draw from [0, 1) a row; unused by greedy rows.

    Raises:
        FloatingPointError: a row has NaN or infinite logits.
    """
    best = logits.argmax(dim=-1)
    if not bool(logits.gather(-1, best[:, None]).isfinite().all()):  # argmax finds a NaN if there is one
        raise FloatingPointError("the model's logits are not finite; try -M dtype=float32")
    chosen: list[int] = best.tolist()
    sampled = [row for row, p in enumerate(params) if p.temperature > 0]
    if not sampled:
        return chosen
    temperatures = torch.tensor([params[row].temperature for row in sampled], device=logits.device)
    picked = logits if len(sampled) == len(params) else logits[sampled]
    probabilities = torch.softmax(picked / temperatures[:, None], dim=-1)
    whole = [i for i, row in enumerate(sampled) if params[row].top_p >= 1 and params[row].top_k <= 0]
    if whole:
        draws = torch.tensor([uniforms[sampled[i]] for i in whole], dtype=torch.float64, device=logits.device)
        part = probabilities if len(whole) == len(sampled) else probabilities[whole]
        for i, token in zip(whole, _invert(part, draws), strict=True):
            chosen[sampled[i]] = token
    for i in set(range(len(sampled))) - set(whole):
        row = sampled[i]
        chosen[row] = _choose_truncated(probabilities[i], params[row], uniforms[row])
    return chosen


def _invert(probabilities: Float[Tensor, "row vocab"], draws: Float[Tensor, " row"]) -> list[int]:
    cumulative = probabilities.cumsum(dim=-1, dtype=torch.float64)
    tokens = torch.searchsorted(cumulative, draws[:, None] * cumulative[:, -1:], right=True)[:, 0]
    return [int(t) for t in tokens.clamp(max=probabilities.shape[1] - 1).tolist()]


def _choose_truncated(probabilities: Float[Tensor, " vocab"], params: SamplingParams, uniform: float) -> int:
    vocab = probabilities.shape[0]
    top_k = min(params.top_k, vocab) if params.top_k > 0 else vocab
    n = min(vocab, max(_CANDIDATES, top_k if params.top_k > 0 else 0))
    values, tokens = probabilities.topk(n)
    if params.top_p < 1 and top_k > n and float(values.sum()) < params.top_p:
        values, tokens = probabilities.sort(descending=True)
    values, tokens = values[:top_k], tokens[:top_k]
    # top-p keeps the smallest set of likeliest tokens whose mass reaches p (at least one)
    before = values.cumsum(dim=-1, dtype=torch.float64) - values
    keep = int((before < params.top_p * float(values.sum() if params.top_k > 0 else 1.0)).sum()) or 1
    draw = torch.tensor([uniform], dtype=torch.float64, device=probabilities.device)
    return int(tokens[_invert(values[None, :keep], draw)[0]])
