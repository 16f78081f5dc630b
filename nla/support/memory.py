"""How much memory a piece of work needs: the process's resident memory, sampled while the work runs (Linux)."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_EVERY = 0.01
"""Seconds between samples."""
_STATM = Path("/proc/self/statm")


@dataclass
class MemoryUse:
    """What was measured, in bytes; None where the system does not tell."""

    added: int | None = None
    """Largest resident memory during the work minus that before it."""


def resident_bytes() -> int | None:
    """Return the resident memory of this process; None where the system does not tell."""
    try:
        return int(_STATM.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


@contextmanager
def memory_use() -> Iterator[MemoryUse]:
    """Measure the memory that the work in the `with` block adds; the figure is there after the block."""
    use, before, done = MemoryUse(), resident_bytes(), threading.Event()
    peak = [before or 0]

    def watch() -> None:
        while not done.wait(_EVERY):
            peak[0] = max(peak[0], resident_bytes() or 0)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield use
    finally:
        done.set()
        thread.join()
        if before is not None:
            use.added = max(peak[0], resident_bytes() or 0) - before
