"""Check of a GGUF file's header before a library reads it.

The `gguf` package trusts the counts in the header, so a file that claims an array of 2^60 values would make it run without end. This
module compares every count with the size of the file.
"""

import struct
from collections.abc import Callable
from pathlib import Path

from nla.support.errors import ModelError

_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Size in bytes of each scalar type of GGUF's metadata, by the type's number."""
_STRING, _ARRAY = 8, 9
_MOST_ENTRIES = 2**20
"""Limit on the number of metadata entries and of tensors. Released models have fewer than ten thousand of each."""


def check_gguf(path: Path) -> None:
    """Read through the metadata of a GGUF file (version 2 or 3, little-endian) and check that it does not reach beyond the file's end.

    Raises:
        ModelError: the file is not GGUF, or a length in its header does not fit the file.
    """
    try:
        with path.open("rb") as file:
            _Header(file.read, file.seek, path.stat().st_size).check()
    except (OSError, struct.error, ValueError) as ex:
        raise ModelError(f"{path} is not a valid GGUF file ({ex}); expected GGUF version 2 or 3. Download the file again.") from ex


class _Header:
    def __init__(self, read: Callable[[int], bytes], seek: Callable[[int, int], int], size: int) -> None:
        self._read, self._seek, self._size = read, seek, size
        self._entries = 0

    def check(self) -> None:
        magic, version = self._read(4), self._number("<I")
        if magic != b"GGUF" or version not in (2, 3):
            raise ValueError(f"it starts with {magic!r}, version {version}")
        tensors, entries = self._number("<Q"), self._number("<Q")
        if max(tensors, entries) > _MOST_ENTRIES:
            raise ValueError(f"its header claims {tensors} tensors and {entries} metadata entries")
        for _ in range(entries):
            self._skip_text()
            self._skip_value(self._number("<I"), depth=0)

    def _number(self, form: str) -> int:
        return int(struct.unpack(form, self._read(struct.calcsize(form)))[0])

    def _skip(self, n_bytes: int) -> None:
        if self._seek(min(n_bytes, self._size + 1), 1) > self._size:
            raise ValueError(f"a metadata value of {n_bytes} bytes reaches beyond the end of the file")

    def _skip_text(self) -> None:
        self._skip(self._number("<Q"))

    def _skip_value(self, kind: int, depth: int) -> None:
        if kind == _STRING:
            self._skip_text()
        elif kind == _ARRAY and depth < 2:
            inner, count = self._number("<I"), self._number("<Q")
            if inner in _SIZES:
                self._skip(_SIZES[inner] * count)
                return
            if count > self._size:
                raise ValueError(f"an array of {count} values cannot fit into {self._size} bytes")
            for _ in range(count):
                self._skip_value(inner, depth + 1)
        elif kind in _SIZES:
            self._skip(_SIZES[kind])
        else:
            raise ValueError(f"unknown metadata type {kind}")
