"""Vectors that are added to the residual stream while a prompt runs: the injection of NLAs of the nanoNLA kind, and edited explanations.

Other NLAs replace the embedding of their marker instead (`Request.injections`).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from nla.models.loaded import LoadedModel


@dataclass(frozen=True, eq=False)
class Addition:
    """A vector that is added to the output of a block, at one position of the prompt, with `share` of the norm of what it is added to."""

    position: int
    block: int
    """0-based."""
    vector: Float[Tensor, " d_model"]
    share: float = 1.0


def with_addition(stream: Float[Tensor, " d_model"], vector: Float[Tensor, " d_model"], share: float = 1.0) -> Float[Tensor, " d_model"]:
    """Return the stream plus the vector, brought to `share` of the stream's L2 norm (norms in float32). A zero vector adds nothing."""
    unit = torch.nn.functional.normalize(vector.float().to(stream.device), dim=-1, eps=1e-12)
    changed: Tensor = stream.float() + share * stream.float().norm() * unit
    return changed.to(stream.dtype)


@contextmanager
def adding(model: LoadedModel, rows: Sequence[Sequence[Addition]], start: int) -> Iterator[None]:
    """Add vectors while a batch runs.

    Args:
        model: the model that runs.
        rows: the additions of each row of the batch.
        start: position of the batch's first column.
    """
    blocks = sorted({addition.block for row in rows for addition in row})
    with ExitStack() as hooks:
        for block in blocks:
            hooks.callback(model.blocks[block].register_forward_hook(_hook(rows, block, start)).remove)
        yield


def _hook(rows: Sequence[Sequence[Addition]], block: int, start: int) -> Callable[..., Any]:
    def hook(_module: object, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> Any:
        stream = (output[0] if isinstance(output, tuple) else output).clone()
        for row, additions in enumerate(rows):
            for addition in additions:
                if addition.block == block:
                    at = addition.position - start
                    stream[row, at] = with_addition(stream[row, at], addition.vector, addition.share)
        return (stream, *output[1:]) if isinstance(output, tuple) else stream

    return hook
