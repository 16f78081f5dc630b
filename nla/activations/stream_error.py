"""How far the residual streams of two engines lie apart, and how far they may."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

BOUNDS = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 2e-2}
"""Largest relative error per token, by dtype: engines add the same numbers in another order."""


def largest_error(streams: Sequence[Float[Tensor, "_pos d_model"]], expected: Sequence[Float[Tensor, "_pos d_model"]]) -> float:
    """Return the largest relative error over all tokens of streams, |a - b| / |b| in L2 norms.

    `streams` and `expected` hold one `[pos, d_model]` per text; texts differ in length.
    """
    errors = [(a - b).norm(dim=-1) / b.norm(dim=-1) for a, b in zip(streams, expected, strict=True)]
    return float(torch.cat(errors).max())
