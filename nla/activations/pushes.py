"""A vector per row of a batch that is added to the residual stream at every position but the first: steering of many rows at once.

`nla.activations.steering` steers a whole model in one direction; here each row has its own, so that many directions are compared in one
forward pass. The first position is left alone, because its norm is many times that of the others.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jaxtyping import Float
from torch import Tensor

from nla.activations.hooks import hidden_of
from nla.models.loaded import LoadedModel


@contextmanager
def pushing(model: LoadedModel, layer: int, vectors: Float[Tensor, "batch d_model"]) -> Iterator[None]:
    """Add a vector to the output of block `layer` in every row of the batches that run inside the `with` block.

    Args:
        model: the model that runs.
        layer: K, the block (0-based) after which the vectors are added.
        vectors: one per row, in the residual stream's own units; a zero vector changes nothing.
    """

    def hook(_module: object, _inputs: object, output: Any) -> Any:
        stream = hidden_of(output).clone()
        stream[:, 1:] += vectors.to(stream)[:, None]
        return (stream, *output[1:]) if isinstance(output, tuple) else stream

    handle = model.blocks[layer].register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
