"""How far apart the residual streams of two engines lie, and how far apart they may lie."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

BOUNDS = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 2e-2}
"""Largest relative error that a token may have, by dtype. Right engines differ too, because they add the same numbers in another order."""


def largest_error(streams: Sequence[Float[Tensor, "_pos d_model"]], expected: Sequence[Float[Tensor, "_pos d_model"]]) -> float:
    """Return the largest relative error of a token, |a - b| / |b| in L2 norms, for its vectors a in `streams` and b in `expected`.

    Both hold one `[pos, d_model]` per text; texts may differ in length.
    """
    errors = [(a - b).norm(dim=-1) / b.norm(dim=-1) for a, b in zip(streams, expected, strict=True)]
    return float(torch.cat(errors).max())
