"""Progress of fetching a model's files, on stderr: a bar on a terminal, else a line for each step."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from nla.support.wheels import Report


@contextmanager
def fetching(what: str) -> Iterator[Report]:
    """A place to report to; `what` is shown until something is reported."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    told: set[str] = set()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(what, total=None)

        def report(step: str, share: float | None) -> None:
            progress.update(bar, description=step, completed=share or 0, total=None if share is None else 1)
            if not console.is_terminal and step not in told:
                told.add(step)
                console.print(step, markup=False, highlight=False, soft_wrap=True)

        yield report
