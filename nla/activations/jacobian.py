"""The mean Jacobian from a block's output to the last block's output: how, on average, a change of one vector reaches the model's end.

For a prompt, J[t] is the sum over all positions t' >= t of d h_last[t'] / d h_K[t], so that what is passed on to later tokens by
attention counts too. The mean is taken over prompts and over all positions t but the first. Source: the Jacobian lens (arXiv 2607.15495).
Its text could not be reached from here, so the sum over t' and the left-out first position are our own choices. Layer K is the output of
decoder block K (0-based); the last block's output is taken before the final norm.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nla.activations.hooks import collecting, hidden_of
from nla.models.adapters import shared_copy
from nla.models.loaded import LoadedModel, exclusive
from nla.support.errors import ConfigError

_BATCH = 4
"""Prompts per forward pass."""
_CHUNK = 48
"""Rows of the Jacobian that are computed together."""


@dataclass(frozen=True)
class MeanJacobian:
    """A mean Jacobian, and how far it has converged."""

    matrix: Float[Tensor, "d_model d_model"]
    """Row i: the gradient of dimension i of the last block's output (float32, on the CPU)."""
    n_prompts: int
    n_positions: int
    halves_cosine: float
    """Cosine between the means over two halves of the prompts, as vectors of all entries: 1 where more prompts would change nothing."""


def mean_jacobian(
    model: LoadedModel, layer: int, prompts: Sequence[Sequence[int]], report: Callable[[int, int, float], None] = lambda *_: None
) -> MeanJacobian:
    """Return the mean Jacobian over prompts.

    Args:
        model: the model; it is not changed.
        layer: K.
        prompts: token ids, all of one length of at least two tokens.
        report: receives the number of prompts done, the number of all, and the cosine of the halves so far.

    Raises:
        ConfigError: there are fewer than two prompts, or they differ in length.
    """
    layer = model.check_layer(layer)
    lengths = {len(prompt) for prompt in prompts}
    if len(prompts) < 2 or len(lengths) != 1 or min(lengths) < 2:
        raise ConfigError(f"{len(prompts)} prompts of lengths {sorted(lengths)}; expected at least 2 prompts, of one length of 2 or more.")
    role = shared_copy(model)
    role.network.set_attn_implementation("eager")  # the fused one has no second way through vmap
    sums = [torch.zeros(model.d_model, model.d_model) for _ in range(2)]
    batches = [prompts[start : start + _BATCH] for start in range(0, len(prompts), _BATCH)]
    if len(batches) == 1:
        batches = [prompts[:1], prompts[1:]]
    done = 0
    for number, batch in enumerate(batches):
        sums[number % 2] += jacobian_sum(role, layer, torch.tensor(batch))
        done += len(batch)
        if number:
            report(done, len(prompts), _cosine(*sums))
    positions = len(prompts) * (min(lengths) - 1)
    return MeanJacobian((sums[0] + sums[1]) / positions, len(prompts), positions, _cosine(*sums))


def _cosine(first: Tensor, second: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(first.flatten(), second.flatten(), dim=0))


@exclusive
def jacobian_sum(model: LoadedModel, layer: int, ids: Int[Tensor, "batch pos"]) -> Float[Tensor, "d_model d_model"]:
    """Return the Jacobian of a batch of prompts, summed over prompts and over all positions but the first (float32, on the CPU)."""
    with torch.enable_grad():
        start, end = _start_and_end(model, layer, ids)
        outputs = end.sum(dim=(0, 1))
        identity = torch.eye(model.d_model, device=end.device, dtype=end.dtype)
        rows = []
        for first in range(0, model.d_model, _CHUNK):
            wanted = identity[first : first + _CHUNK]
            [gradient] = torch.autograd.grad(outputs, start, wanted, retain_graph=True, is_grads_batched=True)
            rows.append(gradient[:, :, 1:].sum(dim=(1, 2)).float().cpu())
    return torch.cat(rows)


def _start_and_end(
    model: LoadedModel, layer: int, ids: Int[Tensor, "batch pos"]
) -> tuple[Float[Tensor, "batch pos d_model"], Float[Tensor, "batch pos d_model"]]:
    """Run a batch; return block K's output as the beginning of the graph, and the last block's output as its end."""
    starts: list[Tensor] = []

    def cut(_module: object, _inputs: object, output: Any) -> Any:
        starts.append(hidden_of(output).detach().requires_grad_())
        return (starts[0], *output[1:]) if isinstance(output, tuple) else starts[0]

    handle = model.blocks[layer].register_forward_hook(cut)
    try:
        with collecting([model.blocks[-1]]) as ends:
            model.network.get_decoder()(input_ids=ids.to(model.device), use_cache=False)
    finally:
        handle.remove()
    return starts[0], ends[0]
