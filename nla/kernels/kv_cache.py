"""Keys and values of many rows of unequal length in preallocated buffers. New rows take the next free slot; when a row leaves, the last
row moves into its slot.

Tokens that all rows begin with (such as the prompt of an activation verbalizer up to its marker) can be stored once, as the trunk.
"""

import inspect
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import Cache

_GRAIN = 64
"""Buffers grow in steps of this many positions, so that they are not reallocated at every new token."""


_cache_names: dict[type[nn.Module], str] = {}


def cache_argument(network: nn.Module, cache: Cache) -> dict[str, Any]:
    """Return the keyword argument that passes a cache to a transformers model: `cache` since version 5.24, `past_key_values` before."""
    kind = type(network)
    if kind not in _cache_names:
        _cache_names[kind] = "cache" if "cache" in inspect.signature(kind.forward).parameters else "past_key_values"
    return {_cache_names[kind]: cache}


def for_rows(cache: Cache, n: int) -> None:
    """Let `n` rows share the keys and values of a cache's one row. Layers that nothing has run through stay empty."""
    for layer in cache.layers:
        if getattr(layer, "is_initialized", False):
            layer.keys = layer.keys.expand(n, -1, -1, -1)  # type: ignore[union-attr]
            layer.values = layer.values.expand(n, -1, -1, -1)  # type: ignore[union-attr]


@dataclass(frozen=True, eq=False)
class Prefix:
    """Keys and values of the first positions of a row, one `[kv_heads, length, d_head]` pair per layer, and their token ids."""

    ids: NDArray[np.int64]
    layers: list[tuple[Tensor, Tensor]]

    @property
    def length(self) -> int:
        """Number of positions stored."""
        return len(self.ids)

    def first(self, length: int) -> "Prefix":
        """Return a view of the first `length` positions."""
        return Prefix(self.ids[:length], [(k[:, :length], v[:, :length]) for k, v in self.layers])

    @property
    def n_bytes(self) -> int:
        """Memory used, in bytes."""
        return sum(t.nbytes for pair in self.layers for t in pair)


class KVCache(Cache):
    """A transformers cache whose rows may have different lengths.

    Rows occupy slots 0 to n - 1 without gaps. Before a forward pass, `target` sets which contiguous slots it runs and at which positions
    its tokens are; transformers then calls `update` once per layer. Buffers have the shape `[slot, kv_heads, position, d_head]` and hold
    the positions after the `trunk`. Positions in the methods' arguments count from the start of a row, including the trunk.
    """

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.trunk: Prefix | None = None
        """Keys and values of the first positions of all rows. It may be set only while the cache holds no row."""
        self._slots = slice(0, 0)
        self._positions: Tensor = torch.empty(0)
        self._start: int | None = None
        self._n_keys = 0
        self._capacity = (0, 0)
        self.expected_slots = 0
        """Expected number of rows. Buffers are allocated for this many at once instead of growing row by row."""

    @property
    def trunk_length(self) -> int:
        """Number of positions that all rows share."""
        return self.trunk.length if self.trunk else 0

    def target(self, slots: slice, positions: Tensor, n_keys: int) -> None:
        """Set where the next forward pass reads and writes.

        Args:
            slots: the contiguous slots of the rows that it runs.
            positions: absolute positions `[row, q]` of its tokens.
            n_keys: number of key positions that its queries may attend to.
        """
        self._slots, self._positions, self._n_keys = slots, positions - self.trunk_length, n_keys - self.trunk_length
        first = self._positions[:, 0]
        start = int(first[0])
        # If all rows write at the same position, a slice copy suffices, which is several times as fast as a scatter.
        self._start = start if bool((first == start).all()) else None
        self._reserve(slots.stop, self._n_keys)

    def update(
        self,
        key_states: Float[Tensor, "row kv_heads q d_head"],
        value_states: Float[Tensor, "row kv_heads q d_head"],
        layer_idx: int,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """Store a layer's new keys and values, and return all keys and values that its queries may attend to, without the trunk."""
        if layer_idx == len(self.keys):
            self.keys.append(self._empty(key_states))
            self.values.append(self._empty(value_states))
        return self._write(self.keys[layer_idx], key_states), self._write(self.values[layer_idx], value_states)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the number of positions before the current pass. transformers calls this even though it gets all positions explicitly."""
        return self.trunk_length + self._n_keys - self._positions.shape[1]

    def move(self, source: int, destination: int, length: int) -> None:
        """Copy a row's first `length` positions into another slot."""
        stored = length - self.trunk_length
        for buffer in (*self.keys, *self.values):
            buffer[destination, :, :stored] = buffer[source, :, :stored]

    def read_prefix(self, slot: int, ids: NDArray[np.int64]) -> Prefix:
        """Return a copy of the keys and values of a row's first tokens. Their ids are `ids`, which start with the trunk's ids."""
        stored = len(ids) - self.trunk_length
        pairs = [(k[slot, :, :stored], v[slot, :, :stored]) for k, v in zip(self.keys, self.values, strict=True)]
        if self.trunk is None:
            return Prefix(ids, [(k.clone(), v.clone()) for k, v in pairs])
        whole = zip(self.trunk.layers, pairs, strict=True)
        return Prefix(ids, [(torch.cat([kt, k], dim=1), torch.cat([vt, v], dim=1)) for (kt, vt), (k, v) in whole])

    def write_prefix(self, slot: int, prefix: Prefix, length: int) -> None:
        """Fill a row's first `length` positions from a prefix that is at least that long and starts with the trunk."""
        start = self.trunk_length
        self._reserve(slot + 1, length - start)
        if not self.keys:
            self.keys, self.values = [self._empty(k[None]) for k, _ in prefix.layers], [self._empty(v[None]) for _, v in prefix.layers]
        for layer, (k, v) in enumerate(prefix.layers):
            self.keys[layer][slot, :, : length - start] = k[:, start:length]
            self.values[layer][slot, :, : length - start] = v[:, start:length]

    def fold_trunk(self) -> None:
        """Copy the trunk into every slot and remove it, so that rows that do not start with it can join."""
        if self.trunk is None:
            return
        trunk, start = self.trunk, self.trunk.length
        self.trunk = None
        slots, positions = self._capacity
        self._capacity = (slots, positions + start)
        for layer, pair in enumerate(trunk.layers):
            for buffers, shared in zip((self.keys, self.values), pair, strict=True):
                grown = self._empty(buffers[layer])
                grown[:, :, :start], grown[:, :, start:] = shared, buffers[layer]
                buffers[layer] = grown

    def clear(self) -> None:
        """Free the buffers."""
        self.keys, self.values, self._capacity, self.trunk = [], [], (0, 0), None

    def _write(self, buffer: Tensor, states: Tensor) -> Tensor:
        rows = buffer[self._slots]
        if self._start is not None:
            rows[:, :, self._start : self._start + states.shape[2]] = states
        else:
            index = torch.arange(rows.shape[0], device=rows.device)[:, None]
            rows[index, :, self._positions.to(rows.device)] = states.transpose(1, 2)
        return rows[:, :, : self._n_keys]

    def _reserve(self, slots: int, positions: int) -> None:
        have_slots, have_positions = self._capacity
        if slots <= have_slots and positions <= have_positions:
            return
        new_slots = have_slots if slots <= have_slots else max(slots, 2 * have_slots, self.expected_slots)
        self._capacity = (new_slots, max(have_positions, -(-positions // _GRAIN) * _GRAIN))
        for buffers in (self.keys, self.values):
            for layer, old in enumerate(buffers):
                buffers[layer] = self._empty(old)
                buffers[layer][: old.shape[0], :, : old.shape[2]] = old

    def _empty(self, like: Tensor) -> Tensor:
        slots, positions = self._capacity
        # Zeros rather than uninitialised memory: masked positions are multiplied by 0, and 0 x NaN is NaN.
        return like.new_zeros(slots, like.shape[1], positions, like.shape[3])
