"""Token sequences of unequal length as one batch. Padding is on the right: attention is causal, so it is never looked at."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor


def right_padded(rows: Sequence[Sequence[int]], multiple: int = 1) -> Int[Tensor, "batch pos"]:
    """The rows under each other, filled up with zeros to the longest one's length or the next multiple of a number."""
    length = -(-max(map(len, rows)) // multiple) * multiple
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row, dtype=torch.long)
    return ids
