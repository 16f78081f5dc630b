"""Calls of several threads are done in one; each gets its own results, and its own error."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from nla.support.gathered import Gathered


def test_calls_that_arrive_during_another_one_run_together() -> None:
    batches: list[list[int]] = []
    first_runs, go_on = threading.Event(), threading.Event()

    def work(items: list[int]) -> list[int]:
        batches.append(list(items))
        if len(batches) == 1:
            first_runs.set()
            assert go_on.wait(20)
        return [item * 10 for item in items]

    gathered = Gathered(work, most=4)
    with ThreadPoolExecutor(6) as pool:
        first = pool.submit(gathered.run, [1])
        assert first_runs.wait(20)
        later = [pool.submit(gathered.run, [n, n + 1]) for n in (2, 4, 6)]
        while len(gathered._waiting) < 3:
            time.sleep(0.001)
        go_on.set()
        assert first.result(20) == [10]
        assert sorted(call.result(20) for call in later) == [[20, 30], [40, 50], [60, 70]]
    assert [len(batch) for batch in batches] == [1, 4, 2]


def test_a_call_larger_than_a_batch_runs_whole() -> None:
    assert Gathered(lambda items: items, most=2).run([1, 2, 3]) == [1, 2, 3]
    assert Gathered(lambda items: items, most=2).run([]) == []


def test_only_the_caller_whose_items_fail_gets_the_error() -> None:
    started = threading.Event()

    def work(items: list[int]) -> list[int]:
        started.set()
        time.sleep(0.05)
        if 13 in items:
            raise ValueError("no 13")
        return items

    gathered = Gathered(work, most=100)
    with ThreadPoolExecutor(8) as pool:
        calls = {n: pool.submit(gathered.run, [n]) for n in (1, 2, 13, 4, 5)}
        assert {n: call.result(20) for n, call in calls.items() if n != 13} == {n: [n] for n in (1, 2, 4, 5)}
        with pytest.raises(ValueError, match="no 13"):
            calls[13].result(20)


def test_many_threads_get_what_they_asked_for() -> None:
    gathered = Gathered(lambda items: [item + 1 for item in items], most=16)
    with ThreadPoolExecutor(32) as pool:
        for n, result in enumerate(pool.map(gathered.run, [[n, -n] for n in range(500)])):
            assert result == [n + 1, 1 - n]
