"""Choose the next token of each row. Every row has its own random draws, so that they do not depend on the rest of the batch."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor
from torch.nn.functional import threshold

_CANDIDATES = 512
"""With top-p or top-k, this many of the likeliest tokens are sorted first, and the whole vocabulary only if they are not enough."""
_BLOCK = 256
"""Number of tokens per block. Sums over blocks locate a draw in the cumulative distribution before single tokens are looked at."""
_CHUNK = 2**20
"""Number of logits processed at once on a CPU, so that they stay in the processor's cache between operations."""
_NEGLIGIBLE = -80.0
"""A token is never drawn if the logarithm of its weight, relative to the likeliest token, is below this."""


@dataclass(frozen=True)
class SamplingParams:
    """How to choose tokens. `temperature` 0 is greedy. `top_p` below 1 and `top_k` above 0 truncate the distribution before the draw."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0


def choose_tokens(logits: Float[Tensor, "row vocab"], params: list[SamplingParams], uniforms: list[float]) -> list[int]:
    """Return the next token of each row, by inverting its cumulative distribution at the row's uniform draw.

    Args:
        logits: the model's logits in any floating-point dtype; probabilities are computed in float32.
        params: one per row.
        uniforms: one draw from [0, 1) per row; greedy rows do not use it.

    Raises:
        FloatingPointError: a row has NaN or infinite logits.
    """
    top = logits.amax(dim=-1, keepdim=True)
    if not bool(top.isfinite().all()):  # the maximum is NaN if any logit is NaN
        raise FloatingPointError("the model's logits are not finite; try -M dtype=float32")
    greedy = [row for row, p in enumerate(params) if p.temperature <= 0]
    cut = [row for row, p in enumerate(params) if p.temperature > 0 and (p.top_p < 1 or p.top_k > 0)]
    whole = sorted(set(range(len(params))) - set(greedy) - set(cut))
    chosen: dict[int, int] = {}
    if greedy:
        chosen |= zip(greedy, _rows(logits, greedy).argmax(dim=-1).tolist(), strict=True)
    if whole:
        chosen |= zip(whole, _draw(logits, top, whole, params, uniforms).tolist(), strict=True)
    for row in cut:
        probabilities = torch.softmax(logits[row].float() / params[row].temperature, dim=-1)
        chosen[row] = _choose_truncated(probabilities, params[row], uniforms[row])
    return [chosen[row] for row in range(len(params))]


def _rows(tensor: Tensor, rows: list[int]) -> Tensor:
    return tensor if len(rows) == tensor.shape[0] else tensor[rows]


def _draw(
    logits: Float[Tensor, "row vocab"], top: Float[Tensor, "row 1"], rows: list[int], params: list[SamplingParams], uniforms: list[float]
) -> Int[Tensor, " drawn"]:
    """Draw a token for each of the given rows from its distribution without truncation.

    On a CPU, arithmetic with subnormal float32 numbers takes 50 times as long, and at low temperatures most weights are that small.
    Weights below e^-80 times the weight of the likeliest token are therefore set to zero.
    """
    temperatures = torch.tensor([params[row].temperature for row in rows], device=logits.device)[:, None]
    draws = torch.tensor([uniforms[row] for row in rows], dtype=torch.float64, device=logits.device)
    size = len(rows) if logits.is_cuda else max(1, _CHUNK // logits.shape[1])
    parts = zip(*(t.split(size) for t in (_rows(logits, rows), _rows(top, rows), temperatures, draws)), strict=True)
    return torch.cat([_invert(_weights(part, best, temperature), share) for part, best, temperature, share in parts])


def _weights(logits: Float[Tensor, "row vocab"], top: Float[Tensor, "row 1"], temperatures: Float[Tensor, "row 1"]) -> Tensor:
    """Return the weight of each token relative to the likeliest token, whose weight is 1."""
    scaled = (logits - top.float()).div_(temperatures).clamp_(min=_NEGLIGIBLE - 1)
    return threshold(scaled.exp_(), math.exp(_NEGLIGIBLE), 0.0, inplace=True)


def _invert(weights: Float[Tensor, "row vocab"], draws: Float64[Tensor, " row"]) -> Int[Tensor, " row"]:
    """Return the first token at which the cumulative weight exceeds the draw times the total weight.

    The search locates the block of tokens first and then the token in the block, because summing up every weight of a large vocabulary in
    double precision took more than a quarter of the time of the forward pass.
    """
    vocab = weights.shape[1]
    n_blocks = vocab // _BLOCK
    sums = weights[:, : n_blocks * _BLOCK].unflatten(1, (n_blocks, _BLOCK)).sum(dim=-1)
    sums = torch.cat([sums, weights[:, n_blocks * _BLOCK :].sum(dim=-1, keepdim=True)], dim=1)
    block, share = _step_at(sums, draws)
    index = block[:, None] * _BLOCK + torch.arange(_BLOCK, device=weights.device)
    inside = weights.gather(1, index.clamp(max=vocab - 1)) * (index < vocab)
    return block * _BLOCK + _step_at(inside, share)[0]


def _step_at(weights: Float[Tensor, "row step"], draws: Float64[Tensor, " row"]) -> tuple[Int[Tensor, " row"], Float64[Tensor, " row"]]:
    """Return the first step at which the cumulative weight exceeds the draw times the total, and the draw's place in it, in [0, 1)."""
    cumulative = weights.cumsum(dim=-1, dtype=torch.float64)
    total = cumulative[:, -1:]
    target = torch.minimum(draws[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    step = torch.searchsorted(cumulative, target, right=True)
    size = weights.gather(1, step).double()
    share = (target - (cumulative.gather(1, step) - size)) / size
    return step[:, 0], share.clamp(0, 1)[:, 0]


def _choose_truncated(probabilities: Float[Tensor, " vocab"], params: SamplingParams, uniform: float) -> int:
    vocab = probabilities.shape[0]
    top_k = min(params.top_k, vocab) if params.top_k > 0 else vocab
    n = min(vocab, max(_CANDIDATES, top_k if params.top_k > 0 else 0))
    values, tokens = probabilities.topk(n)
    if params.top_p < 1 and top_k > n and float(values.sum()) < params.top_p:
        values, tokens = probabilities.sort(descending=True)
    values, tokens = values[:top_k], tokens[:top_k]
    # top-p keeps the smallest set of likeliest tokens whose total probability reaches p, and at least one token.
    before = values.cumsum(dim=-1, dtype=torch.float64) - values
    keep = int((before < params.top_p * float(values.sum() if params.top_k > 0 else 1.0)).sum()) or 1
    draw = torch.tensor([uniform], dtype=torch.float64, device=probabilities.device)
    return int(tokens[_invert(values[None, :keep], draw)[0]])
