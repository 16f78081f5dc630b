"""Forward hooks on decoder blocks. All of them are removed again at the end of a `with` block, even after an error."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn


class ReachedBlockError(Exception):
    """Raised to end a forward pass after the last block whose output is needed."""


def hidden_of(output: Any) -> Float[Tensor, "batch pos d_model"]:
    """Return the residual stream in a block's output, which some architectures wrap in a tuple."""
    hidden: Tensor = output[0] if isinstance(output, tuple) else output
    return hidden


@contextmanager
def stopping_after(block: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the output of a block and end the forward pass there with a `ReachedBlockError`, which the caller suppresses.

    Yields:
        A list that receives the residual stream `[batch, pos, d_model]` after the block.
    """
    reached: list[Tensor] = []

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
        reached.append(hidden_of(output))
        raise ReachedBlockError

    handle = block.register_forward_hook(hook)
    try:
        yield reached
    finally:
        handle.remove()


@contextmanager
def collecting(blocks: Iterable[nn.Module]) -> Iterator[list[Tensor]]:
    """Collect the output of several blocks during a forward pass.

    Yields:
        A list that receives one residual stream `[batch, pos, d_model]` per block, in the order in which they run.
    """
    collected: list[Tensor] = []
    handles = [block.register_forward_hook(lambda _m, _i, output: collected.append(hidden_of(output))) for block in blocks]
    try:
        yield collected
    finally:
        for handle in handles:
            handle.remove()
