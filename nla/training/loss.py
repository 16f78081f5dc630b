"""Losses that need little memory: cross-entropy without keeping the logits, and sums whose parts are differentiated one by one."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

CHUNK = 128
"""Rows per chunk: with a vocabulary of 49,152 the logits stay below 32 MB, above which glibc maps fresh pages for every chunk."""
PART = 16
"""Rows of a batch that are differentiated at a time: more need more memory, and are hardly faster on a processor."""
_LEAST = 1e-38
"""Smallest probability whose logarithm is taken."""


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        losses = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for start in range(0, len(hidden), CHUNK):
            rows = slice(start, start + CHUNK)
            target_ids = targets[rows, None]
            shares = torch.softmax(hidden[rows] @ weight.T, dim=-1, dtype=torch.float32)
            losses[rows] = -shares.gather(-1, target_ids)[:, 0].clamp_min(_LEAST).log()
            if gradient is not None:
                shares.scatter_add_(-1, target_ids, torch.full_like(target_ids, -1, dtype=shares.dtype))
                gradient[rows] = shares.to(weight.dtype) @ weight
        ctx.save_for_backward(gradient)
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream[:, None].to(gradient.dtype), None, None


def linear_cross_entropy(
    hidden: Float[Tensor, "n d_model"], weight: Float[Tensor, "vocab d_model"], targets: Int[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """Return -log p(target) of each row in nats (float32), for the logits `hidden @ weight.T`. The weight gets no gradient.

    The logits of all rows would take `n x vocab` floats three times over. Here only a chunk exists at a time, and its gradient with
    respect to `hidden` is computed in the same pass.
    """
    losses: Tensor = _LinearCrossEntropy.apply(hidden, weight.to(hidden.dtype), targets)  # type: ignore[no-untyped-call]
    return losses


class _Settled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: list[Tensor], *_parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, *(gradient * upstream for gradient in ctx.gradients))


def summed(parts: Iterable[Float[Tensor, ""]], parameters: Sequence[nn.Parameter]) -> Float[Tensor, ""]:
    """Return the sum of losses, whose gradient reaches `parameters` only.

    Each part is differentiated before the next one is computed, so that the memory of one part is needed at a time.

    Args:
        parts: losses, computed one by one as they are asked for.
        parameters: trained parameters; one that a part does not use gets no gradient from it.
    """
    total = torch.zeros((), device=parameters[0].device)
    gradients = [torch.zeros_like(parameter) for parameter in parameters]
    for part in parts:
        total = total + part.detach()
        for place, gradient in enumerate(torch.autograd.grad(part, parameters, allow_unused=True)):
            if gradient is not None:
                gradients[place] += gradient
    loss: Tensor = _Settled.apply(total, gradients, *parameters)  # type: ignore[no-untyped-call]
    return loss
