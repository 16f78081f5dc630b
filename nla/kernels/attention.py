"""Attention over rows of unequal length without padding, as an attention implementation for transformers models.

It is registered with transformers under `IMPLEMENTATION`. Outside a `RaggedStep` it calls transformers' own attention. Inside a
step, keys and values come from a `nla.kernels.kv_cache.KVCache` whose rows have different lengths, and the mask is computed here from
those lengths, so no model code has to build one.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from nla.kernels.kv_cache import Prefix

IMPLEMENTATION = "ragged"
_FEW_QUERIES = 8
"""Attention to a trunk stores the scores of all queries only up to this number of queries per row. With more, it uses a fused kernel."""


@dataclass
class RaggedStep:
    """One forward pass over rows of unequal length.

    `positions` `[row, q]` are the absolute positions of the queries. A query attends to key position j when j is at most its
    position p (and, under a sliding window w, j > p - w). Keys lie at positions 0 to `n_keys` - 1; with a `trunk`, they start at the
    position after the trunk. Every query attends to the whole trunk, so a trunk cannot be combined with a sliding window.
    """

    positions: Int[Tensor, "row q"]
    n_keys: int
    lengths: Int[Tensor, " row"]
    """Tokens in each row after this step, without padding."""
    trunk: Prefix | None = None
    """Keys and values of the first positions, which all rows share."""
    _masks: dict[tuple[int | None, torch.device], Tensor | None] = field(default_factory=dict)

    def plainly_causal(self, window: int | None) -> bool:
        """Return whether this is a first pass over whole sequences, which fused kernels compute without a mask."""
        q = self.positions.shape[1]
        return self.trunk is None and q > 1 and q == self.n_keys and (window is None or window >= q)

    def mask(self, window: int | None, device: torch.device) -> Bool[Tensor, "row 1 q n_keys"] | None:
        """Return which keys each query attends to, on the device of a block, or None where all queries attend to all keys."""
        key = window, device
        if key not in self._masks:
            first = self.trunk.length if self.trunk else 0
            positions = self.positions.to(device)
            keys = torch.arange(first, self.n_keys, device=device)
            seen = keys <= positions[..., None]
            if window is not None:
                seen &= keys > positions[..., None] - window
            self._masks[key] = None if bool(seen.all()) else seen[:, None]
        return self._masks[key]


_active = threading.local()


@contextmanager
def ragged_step(step: RaggedStep) -> Iterator[None]:
    """Make `step` the current step of this thread's attention."""
    _active.step = step
    try:
        yield
    finally:
        _active.step = None


def current_step() -> RaggedStep | None:
    """Return the ragged step this thread is in, or None."""
    step: RaggedStep | None = getattr(_active, "step", None)
    return step


def _attention(
    module: nn.Module,
    query: Float[Tensor, "row heads q d_head"],
    key: Float[Tensor, "row kv_heads n_keys d_head"],
    value: Float[Tensor, "row kv_heads n_keys d_value"],
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Implement transformers' attention interface: return the output `[row, q, heads, d_value]` and no attention weights."""
    step = current_step()
    if softcap is not None:
        mask = attention_mask if step is None else step.mask(sliding_window, query.device)
        return _softcapped(query, key, value, mask, scaling, softcap).transpose(1, 2), None
    if step is None or step.plainly_causal(sliding_window):
        mask = attention_mask if step is None else None
        return sdpa_attention_forward(
            module, query, key, value, mask, dropout=dropout, scaling=scaling, sliding_window=sliding_window, **kwargs
        )
    mask = step.mask(sliding_window, query.device)
    if step.trunk is not None:
        layer: Any = module.layer_idx
        return _with_trunk(query, key, value, mask, step.trunk.layers[layer], scaling).transpose(1, 2), None
    return _packed(query, key, value, mask, scaling).transpose(1, 2), None


def _packed(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None) -> Float[Tensor, "row heads q d_value"]:
    """Attend with a fused kernel; key heads that several query heads share are not repeated."""
    row, heads, q, d_head = query.shape
    group = heads // key.shape[1]
    # Query heads that share a key head become additional queries of that head, so keys and values need no copies.
    packed = query.reshape(row, key.shape[1], group * q, d_head)
    packed_mask = mask if mask is None or q == 1 else mask.repeat(1, 1, group, 1)
    out = scaled_dot_product_attention(packed, key, value, attn_mask=packed_mask, scale=scaling)
    return out.reshape(row, heads, q, value.shape[-1])


def _with_trunk(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, trunk: tuple[Tensor, Tensor], scaling: float | None
) -> Float[Tensor, "row heads q d_value"]:
    """Attend to the trunk and to each row's own keys under a single softmax.

    One product per key head computes the scores of all rows against the trunk. A fused kernel would need a copy of the trunk per row and
    read each copy from memory, which took 2 to 3 times as long with 128 rows and a prompt of 115 tokens.
    """
    (row, heads, q, d_head), kv_heads, shared = query.shape, key.shape[1], trunk[0].shape[1]
    if q > _FEW_QUERIES:
        key, value = (torch.cat([t.expand(row, -1, -1, -1), rest], dim=2) for t, rest in zip(trunk, (key, value), strict=True))
        mask = mask if mask is None else torch.cat([mask.new_ones(*mask.shape[:-1], shared), mask], dim=-1)
        return _packed(query, key, value, mask, scaling)
    packed = query.reshape(row, kv_heads, heads // kv_heads * q, d_head)
    by_head = packed.transpose(0, 1).reshape(kv_heads, -1, d_head)
    scores = packed.new_empty(*packed.shape[:-1], shared + key.shape[2])
    scores[..., :shared] = (by_head @ trunk[0].transpose(1, 2)).view(kv_heads, row, -1, shared).transpose(0, 1)
    scores[..., shared:] = packed @ key.transpose(2, 3)
    if mask is not None:
        hidden = ~mask if q == 1 else ~mask.repeat(1, 1, heads // kv_heads, 1)
        scores[..., shared:].masked_fill_(hidden, -torch.inf)
    weights = scores.mul_(scaling if scaling is not None else d_head**-0.5).softmax(dim=-1, dtype=torch.float32).to(value.dtype)
    of_trunk = weights[..., :shared].transpose(0, 1).reshape(kv_heads, -1, shared) @ trunk[1]
    out = of_trunk.view(kv_heads, row, -1, value.shape[-1]).transpose(0, 1) + weights[..., shared:] @ value
    return out.reshape(row, heads, q, value.shape[-1])


def _softcapped(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None, softcap: float
) -> Float[Tensor, "row heads q d_value"]:
    """Attend with scores that tanh limits to the range from -softcap to softcap (Gemma 2)."""
    q, n_keys, group = query.shape[2], key.shape[2], query.shape[1] // key.shape[1]
    if mask is None:
        mask = torch.ones(q, n_keys, dtype=torch.bool, device=query.device).tril(n_keys - q)
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    scores = query @ key.repeat_interleave(group, dim=1).transpose(2, 3) * scale
    scores = torch.tanh(scores / softcap) * softcap
    scores = scores.masked_fill(~mask, -torch.inf)
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    return weights @ value.repeat_interleave(group, dim=1)


def _mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """Implement transformers' mask interface: None inside a ragged step, whose `mask` is used instead; otherwise `sdpa_mask`."""
    if current_step() is not None:
        return None
    return sdpa_mask(*args, **kwargs)


AttentionInterface.register(IMPLEMENTATION, _attention)
AttentionMaskInterface.register(IMPLEMENTATION, _mask)
