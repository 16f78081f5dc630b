"""Cross-entropy over a large vocabulary without keeping the logits: value and gradient in one pass over chunks of rows."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

_CHUNK = 512


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        losses = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        gradient = torch.empty_like(hidden)
        for start in range(0, len(hidden), _CHUNK):
            rows = slice(start, start + _CHUNK)
            logits = (hidden[rows] @ weight.T).float()
            logits -= torch.logsumexp(logits, dim=-1, keepdim=True)
            wanted = targets[rows, None]
            losses[rows] = -logits.gather(-1, wanted)[:, 0]
            shares = logits.exp_()
            shares.scatter_add_(-1, wanted, torch.full_like(wanted, -1, dtype=shares.dtype))
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
    """-log p(target) in nats of each row under the logits `hidden @ weight.T` (float32). The weight gets no gradient.

    Logits of all rows would take `n x vocab` floats three times over; here only a chunk exists at a time, and its gradient with
    respect to `hidden` is worked out on the way.
    """
    losses: Tensor = _LinearCrossEntropy.apply(hidden, weight.to(hidden.dtype), targets)  # type: ignore[no-untyped-call]
    return losses
