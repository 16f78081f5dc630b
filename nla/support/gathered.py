"""Work that is cheaper in one large call than in many small ones: calls that threads make at the same time are done together."""

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Call(Generic[Item, Result]):
    """What one thread asked for, and its results once they are there."""

    def __init__(self, items: list[Item]) -> None:
        self.items = items
        self.results: list[Result] | None = None
        self.error: Exception | None = None

    @property
    def done(self) -> bool:
        return self.results is not None or self.error is not None


class Gathered(Generic[Item, Result]):
    """Gathers the calls that arrive while another one runs, and does them in one call of `work`.

    No call waits for others to arrive: the first one runs by itself, and those that arrive meanwhile run together after it.

    Args:
        work: returns one result per item, in their order. It is called by one thread at a time.
        most: most items in one call of `work`; if one caller gives more, they still run in one call.
    """

    def __init__(self, work: Callable[[list[Item]], list[Result]], most: int) -> None:
        self._work, self._most = work, most
        self._waiting: list[_Call[Item, Result]] = []
        self._arriving, self._working = threading.Lock(), threading.Lock()

    def run(self, items: Sequence[Item]) -> list[Result]:
        """Return the result of each item, in their order. The calling thread waits, or does the work of all callers that wait.

        Raises:
            Exception: whatever `work` raised for these items. Where it fails on the items of several callers, it is called again for
                each caller, so that no caller gets another's error.
        """
        if not items:
            return []
        call: _Call[Item, Result] = _Call(list(items))
        with self._arriving:
            self._waiting.append(call)
        with self._working:
            while not call.done:
                self._serve(self._next())
        if call.error is not None:
            raise call.error
        assert call.results is not None
        return call.results

    def _next(self) -> list[_Call[Item, Result]]:
        """Take the calls that have waited longest, as many as fit into one call of `work`."""
        with self._arriving:
            taken, n = 1, len(self._waiting[0].items)
            while taken < len(self._waiting) and n + len(self._waiting[taken].items) <= self._most:
                n += len(self._waiting[taken].items)
                taken += 1
            calls, self._waiting = self._waiting[:taken], self._waiting[taken:]
        return calls

    def _serve(self, calls: list[_Call[Item, Result]]) -> None:
        try:
            results = self._work([item for call in calls for item in call.items])
        except Exception as ex:
            if len(calls) == 1:
                calls[0].error = ex
            else:
                for call in calls:
                    self._serve([call])
            return
        for call in calls:
            call.results, results = results[: len(call.items)], results[len(call.items) :]
