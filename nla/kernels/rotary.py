"""Rotary position embeddings whose frequencies depend on the length of the sequence (longrope), computed separately for each row.

transformers chooses one set of frequencies per forward pass, from the largest position in the batch. A short row that runs beside a
long row would then be computed with the long row's frequencies, and its output would change.
"""

import copy
import inspect
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from nla.kernels.attention import current_step


def rope_switch(config: Any) -> int | None:
    """Return the sequence length above which a model changes its rotary frequencies, or None where they never change.

    `dynamic` scaling changes them only beyond the context window (`max_position_embeddings`), which the harness never exceeds.

    Args:
        config: the text model's config.

    Raises:
        NotImplementedError: different kinds of layers change their frequencies at different lengths.
    """
    parameters = getattr(config, "rope_parameters", None) or {}
    if any(isinstance(value, dict) and value.get("rope_type") == "longrope" for value in parameters.values()):
        raise NotImplementedError("longrope frequencies that differ between kinds of layers")
    if parameters.get("rope_type") != "longrope":
        return None
    return int(parameters["original_max_position_embeddings"])


def separate_rows(network: nn.Module, switch: int) -> None:
    """Make every rotary module of a network choose its frequencies separately for each row, by the length of that row.

    Args:
        network: a model whose rope type is longrope.
        switch: longest sequence that uses the short frequencies (`rope_switch`).
    """
    for module in list(network.modules()):
        if getattr(module, "rope_type", None) == "longrope":
            module.forward = _RowRotary(module, switch)


class _RowRotary:
    """The forward pass of a rotary module: `(cos, sin)`, each `[row, pos, d_rotary]`, for `position_ids` `[row, pos]`."""

    def __init__(self, module: Any, switch: int) -> None:
        self.switch = switch
        self.plain = inspect.unwrap(type(module).forward)
        """transformers' forward pass without the decorator that changes the frequencies."""
        self.short, self.long = copy.deepcopy(module), copy.deepcopy(module)
        device = module.inv_freq.device
        frequencies, _ = ROPE_INIT_FUNCTIONS["longrope"](module.config, device, seq_len=switch + 1)
        self.short.inv_freq = module.original_inv_freq.to(device)
        self.long.inv_freq = frequencies

    def __deepcopy__(self, memo: dict[int, Any]) -> "_RowRotary":
        return self  # it has no state, and copies of a network share their weights

    @torch.no_grad()
    def __call__(self, x: Tensor, position_ids: Int[Tensor, "row pos"]) -> tuple[Float[Tensor, "row pos d"], Float[Tensor, "row pos d"]]:
        step = current_step()
        lengths = position_ids.amax(dim=-1) + 1 if step is None else step.lengths
        is_long = (lengths > self.switch)[:, None, None]
        if bool(is_long.all()) or not bool(is_long.any()):
            cos, sin = self.plain(self.long if bool(is_long.any()) else self.short, x, position_ids)
            return cos, sin
        pairs = zip(self.plain(self.long, x, position_ids), self.plain(self.short, x, position_ids), strict=True)
        cos, sin = (torch.where(is_long, long, short) for long, short in pairs)
        return cos, sin
