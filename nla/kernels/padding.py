"""Token sequences of unequal length as one batch. Padding is on the right, where causal attention never reads it."""

import itertools
from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

FEW_SHAPES = 8
"""Training pads lengths to a multiple of this, because oneDNN compiles a kernel for each new shape (0.2 to 2 s per step)."""


def right_padded(rows: Sequence[Sequence[int]], multiple: int = 1) -> Int[Tensor, "batch pos"]:
    """Return rows as one batch, padded with zeros to the length of the longest row, rounded up to a multiple of `multiple`."""
    length = -(-max(map(len, rows)) // multiple) * multiple
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row, dtype=torch.long)
    return ids


def batches_by_length(lengths: Sequence[int], most_tokens: int) -> Iterator[list[int]]:
    """Yield row numbers in batches of similar lengths, which need little padding.

    A batch has at most `most_tokens` tokens, padding included. A longer row is a batch by itself; with `most_tokens` 0, every row is.
    """
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[row] > most_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def common_beginning(rows: Sequence[Sequence[int]]) -> list[int]:
    """Return the leading tokens that all rows share; the last token of a row is never among them."""
    shortest = min(map(len, rows)) - 1
    same = itertools.takewhile(lambda tokens: len(set(tokens)) == 1, zip(*(row[:shortest] for row in rows), strict=True))
    return [tokens[0] for tokens in same]


def alike_parts(rows: Sequence[int], length: Callable[[int], int], size: int) -> list[list[int]]:
    """Split row numbers into parts of at most `size` rows of similar lengths, so that each needs little padding."""
    ordered = sorted(rows, key=lambda row: (length(row), row))
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def alike_halves(rows: Sequence[int], length: Callable[[int], int]) -> list[list[int]]:
    """Split row numbers into a half of shorter and a half of longer rows, so that each needs little padding. Empty halves are omitted."""
    ordered = sorted(rows, key=lambda row: (length(row), row))
    return [half for half in (ordered[: len(ordered) // 2], ordered[len(ordered) // 2 :]) if half]
