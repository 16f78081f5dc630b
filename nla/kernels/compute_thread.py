"""What makes networks quick on a CPU besides their kernels: one thread that runs them all, and an allocator that keeps its pages.

Nothing that is done by `compute` overlaps with anything else that is, whichever thread does it, so networks and caches need no locks
of their own.

Threads: libgomp, which torch's products run on, keeps helpers for every thread that ever asked it for a product. As soon as there are
more of them than processors, helpers no longer spin between two products but sleep, and each of the hundreds of small products of a
step pays for waking them up.

Pages: glibc gives blocks above 32 MiB (the logits of 170 rows, say) back to the system at once, and the next step faults them in anew.
In threads other than the main one its heaps end at 64 MiB, so larger blocks still are.
"""

import ctypes
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import lru_cache
from queue import SimpleQueue
from typing import Any, TypeVar

_T = TypeVar("_T")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT = 2**29
"""Bytes: blocks up to this size, and as much free memory, are not given back."""


class _ComputeThread:
    """Does jobs one after the other, in the order they came in. A daemon: Ctrl-C does not wait for the job that is running."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        self._thread = threading.Thread(target=self._loop, name="compute", daemon=True)
        self._starting = threading.Lock()
        self._turn = threading.Lock()
        self._at_work = threading.local()

    @property
    def runs(self) -> bool:
        """Whether anything was ever given to it."""
        return self._thread.is_alive()

    def do(self, work: Callable[[], _T]) -> _T:
        """Wait for a job's turn and its result; what a job asks for itself is done at once."""
        if self._is_at_work:
            return work()
        with self._starting:
            if not self.runs:
                self._thread.start()
        future: Future[_T] = Future()
        self._jobs.put((future, work))
        try:
            return future.result()
        finally:
            del future  # else a failure, which holds this frame, and the future hold each other, and the failed job's tensors with them

    def here(self, work: Callable[[], _T]) -> _T:
        """Do work in the calling thread, between two jobs; what work asks for itself is done at once."""
        if self._is_at_work:
            return work()
        with self._turn:
            self._at_work.now = True
            try:
                return work()
            finally:
                self._at_work.now = False

    @property
    def _is_at_work(self) -> bool:
        """Whether the calling thread is in the middle of some work."""
        return getattr(self._at_work, "now", False)

    def _loop(self) -> None:
        while True:
            future, work = self._jobs.get()
            try:
                future.set_result(self.here(work))
            except BaseException as ex:  # whoever waits for the job gets it; the thread lives on for the next one
                future.set_exception(ex)
            del future, work  # what a job holds (tensors) must not live until the next one comes


_compute_thread = _ComputeThread()


def on_compute_thread(work: Callable[[], _T]) -> _T:
    """Do work in the process' one compute thread, whoever asks, and wait for it.

    Raises:
        Exception: whatever the work raised.
    """
    return _compute_thread.do(work)


def compute(work: Callable[[], _T]) -> _T:
    """Do work in the compute thread; in the main thread if that asks and there is no compute thread yet, as in commands and trainings.

    Raises:
        Exception: whatever the work raised.
    """
    alone = threading.current_thread() is threading.main_thread() and not _compute_thread.runs
    return _compute_thread.here(work) if alone else on_compute_thread(work)


@lru_cache(maxsize=1)
def keep_freed_memory() -> None:
    """Let the C library keep freed memory for the next step instead of giving it back (glibc; elsewhere nothing happens)."""
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, _KEPT)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT)
