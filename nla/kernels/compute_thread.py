"""Run all networks of a process on one CPU thread, and keep freed memory for reuse. Both make forward passes on a CPU faster.

Work given to `compute` or `on_compute_thread` runs one piece at a time, whichever thread asks for it. Networks and caches therefore
need no locks of their own.

Threads: torch computes matrix products with libgomp (OpenMP), which keeps a separate set of worker threads for every thread that has
ever requested a product. When there are more worker threads than processors, they sleep between two products instead of waiting
actively, and each of the hundreds of small products in a decoding step then takes longer, because the workers have to wake up.

Memory: glibc returns freed blocks above 32 MiB (for example the logits of 170 rows) to the system immediately, and the next step has to
request the same memory again. `keep_freed_memory` raises this limit. In threads other than the main thread, glibc's heaps end at
64 MiB, so larger blocks are still returned.
"""

import atexit
import ctypes
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import lru_cache
from queue import SimpleQueue
from typing import Any, TypeVar

_T = TypeVar("_T")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 2**29
"""Freed blocks up to this size, and up to this much free memory in total, are not returned to the system."""
_LONGEST_JOB = 10.0
"""Seconds that the end of the process waits for the running job, at most. A decoding step takes a fraction of a second."""


class _ComputeThread:
    """Runs jobs one at a time, in the order of their arrival.

    The thread is a daemon, so that a process can end although jobs are waiting. It must not be inside torch at that moment, because
    C++ then aborts the process; therefore `end` lets the running job finish first.
    """

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Forget thread and jobs: a forked process has none of its parent's threads, and takes even one not yet started for dead."""
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        self._thread = threading.Thread(target=self._loop, name="compute", daemon=True)
        self._starting = threading.Lock()
        self._turn = threading.Lock()
        self._at_work = threading.local()
        self._ending = False

    @property
    def runs(self) -> bool:
        """Whether the thread has been started; the first job starts it."""
        return self._thread.is_alive()

    def do(self, work: Callable[[], _T]) -> _T:
        """Run a job on the thread and return its result. A job that is submitted by the running job runs immediately."""
        if self._is_at_work:
            return work()
        with self._starting:
            if not self.runs and not self._ending:  # a daemon thread that still submits jobs waits until the process is gone
                self._thread.start()
        future: Future[_T] = Future()
        self._jobs.put((future, work))
        try:
            return future.result()
        finally:
            # An exception refers to this frame, and the future to the exception. Without `del`, this cycle would keep the job's tensors.
            del future

    def here(self, work: Callable[[], _T]) -> _T:
        """Run work in the calling thread while no other job runs. Work that is submitted by running work runs immediately."""
        if self._is_at_work:
            return work()
        with self._turn:
            self._at_work.now = True
            try:
                return work()
            finally:
                self._at_work.now = False

    def end(self) -> None:
        """Finish the running job, run none of the waiting ones, and end the thread. The process is ending when this is called."""
        if self.runs:
            self._ending = True
            self._jobs.put((Future(), lambda: None))  # wakes a thread that waits for a job
            self._thread.join(_LONGEST_JOB)

    @property
    def _is_at_work(self) -> bool:
        """Whether the calling thread is running a job."""
        return getattr(self._at_work, "now", False)

    def _loop(self) -> None:
        while True:
            future, work = self._jobs.get()
            if self._ending:
                return
            try:
                future.set_result(self.here(work))
            except BaseException as ex:  # passed on to the caller that waits for the job; the thread continues with the next job
                future.set_exception(ex)
            del future, work  # a job's tensors must not stay in memory until the next job arrives


_compute_thread = _ComputeThread()
atexit.register(_compute_thread.end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_compute_thread.renew)


def on_compute_thread(work: Callable[[], _T]) -> _T:
    """Run work on the compute thread of this process, and return its result.

    Raises:
        Exception: whatever `work` raised.
    """
    return _compute_thread.do(work)


def compute(work: Callable[[], _T]) -> _T:
    """Run work while no other network of this process runs, and return its result.

    Work runs on the compute thread. Only where the main thread calls this before the compute thread has been started (as commands and
    training do), it runs in the main thread.

    Raises:
        Exception: whatever `work` raised.
    """
    alone = threading.current_thread() is threading.main_thread() and not _compute_thread.runs
    return _compute_thread.here(work) if alone else on_compute_thread(work)


@lru_cache(maxsize=1)
def keep_freed_memory() -> None:
    """Make the C library keep freed memory for the next step instead of returning it to the system (glibc only; otherwise no effect)."""
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
