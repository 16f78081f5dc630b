"""Progress of `audit run`: one line with condition, transcripts done, rate and time left. Without a terminal, a line per condition.

It takes the place of Inspect's own display, which shows a panel per condition and scrolls what the harness says out of sight.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Self

from inspect_ai import Task
from inspect_ai.scorer import Score, Scorer, Target
from inspect_ai.solver import TaskState
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Task as Bar
from rich.text import Text

from nla.support.display import plain

_LONGEST = 30
"""Characters of a condition's name that fit beside the numbers in 80 columns."""


class _Rate(ProgressColumn):
    """Transcripts per minute; rates of less than one per second are usual."""

    def render(self, task: Bar) -> Text:
        """Show the rate of the last minutes, or nothing before the first transcript."""
        return Text("" if task.speed is None else f"{60 * task.speed:.1f}/min")


class RunProgress:
    """Progress of one audit's conditions. It is a context manager, which shows the line; nothing is shown outside of it."""

    def __init__(self, console: Console, label: str = "") -> None:
        """Args:
        console: where the line is shown.
        label: what stands before the conditions' names, e.g. which of several audits this is.
        """
        columns = (TextColumn("{task.description}", markup=False), MofNCompleteColumn(), _Rate(), TextColumn("left"), TimeRemainingColumn())
        self._console = console
        self._label = f"{label} " if label else ""
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal, speed_estimate_period=120)
        self._id = self._bar.add_task("", total=0)
        self._done = 0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    @property
    def done(self) -> int:
        """Number of transcripts that were scored since the start."""
        return self._done

    def say(self, line: str) -> None:
        """Print a line above the line of progress."""
        self._console.print(plain(line, "dim"), soft_wrap=True)

    def expect(self, n: int) -> None:
        """Add transcripts to those that are to come."""
        self._bar.update(self._id, total=self._total + n)

    @contextmanager
    def condition(self, name: str, tasks: Sequence[Task], n: int) -> Iterator[None]:
        """Show a condition while it runs, and count the transcripts of its tasks. Those that an earlier run finished are not counted.

        Args:
            name: the condition's name.
            tasks: its tasks, whose last scorers report here.
            n: number of its transcripts, which `expect` was told of.
        """
        before, start = self._done, time.monotonic()
        self._bar.update(self._id, description=f"{self._label}{name}"[:_LONGEST])
        for task in tasks:
            if task.scorer:
                task.scorer[-1] = _reporting(task.scorer[-1], self._advance)
        yield
        counted = self._done - before
        self._bar.update(self._id, total=self._total - (n - counted))
        if not self._console.is_terminal:
            earlier = f", {n - counted} of them by an earlier run" if counted < n else ""
            self.say(f"{self._label}{name}: {n} transcripts in {time.monotonic() - start:.0f} s{earlier}")

    @property
    def _total(self) -> float:
        return self._bar.tasks[0].total or 0

    def _advance(self) -> None:
        self._done += 1
        self._bar.update(self._id, advance=1)


def _reporting(scorer: Scorer, report: Callable[[], None]) -> Scorer:
    """Return a scorer that reports each transcript when it has scored it."""

    @wraps(scorer)  # keeps the scorer's name, parameters and metrics, which Inspect stores on the function
    async def score(state: TaskState, target: Target) -> Score | None:
        scored = await scorer(state, target)
        report()
        return scored

    return score
