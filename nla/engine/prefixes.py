"""Stored prompt prefixes: keys and values of prompts' first tokens, from which later prompts with the same beginning start."""

from collections import OrderedDict
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from nla.kernels.kv_cache import Prefix

MIN_SHARED_PREFIX = 16
"""A shared beginning of fewer tokens than this is computed again, because copying it would save no time."""
_PREFIX_BYTES = 192 * 2**20
"""Memory for stored prefixes, in bytes; the prefix that was not used for longest is dropped first."""


class PrefixStore:
    """Prefixes of recent prompts.

    Prompts beyond the length at which a model switches its rotary frequencies (`nla.kernels.rotary`) share only with each other.
    """

    def __init__(self) -> None:
        self._prefixes: OrderedDict[tuple[bool, bytes], Prefix] = OrderedDict()

    def longest(self, ids: NDArray[np.int64], limit: int, beyond_switch: bool, trunk: Prefix | None) -> tuple[int, Prefix | None]:
        """Return how many first tokens of a prompt the trunk or a stored prefix covers, and which of them does.

        Args:
            ids: token ids of the prompt `[pos]`.
            limit: largest number of tokens that may be covered.
            beyond_switch: whether the prompt is longer than the model's switch of frequencies.
            trunk: the tokens that all rows begin with, if there are any.
        """
        best, length = None, MIN_SHARED_PREFIX - 1
        stored = [prefix for (is_long, _), prefix in self._prefixes.items() if is_long == beyond_switch]
        for prefix in (*stored, *([trunk] if trunk else [])):
            shared = shared_length(prefix.ids, ids, limit)
            if shared > length:
                best, length = prefix, shared
        if best is None:
            return 0, None
        if (key := (beyond_switch, best.ids.tobytes())) in self._prefixes:
            self._prefixes.move_to_end(key)
        return length, best

    def keep(self, ids: NDArray[np.int64], beyond_switch: bool, read: Callable[[], Prefix]) -> Prefix:
        """Store the prefix of some first tokens, read by `read` if it is not stored yet, and return it."""
        key = (beyond_switch, ids.tobytes())
        if key in self._prefixes:
            return self._prefixes[key]
        prefix = read()
        self._prefixes[key] = prefix
        while sum(kept.n_bytes for kept in self._prefixes.values()) > _PREFIX_BYTES:
            self._prefixes.popitem(last=False)
        return prefix


def shared_length(left: NDArray[np.int64], right: NDArray[np.int64], limit: int) -> int:
    """Return how many first tokens two sequences have in common, at most `limit`."""
    n = min(limit, len(left), len(right))
    different = np.flatnonzero(left[:n] != right[:n])
    return int(different[0]) if different.size else n
