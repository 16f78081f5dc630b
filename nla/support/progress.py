"""Progress of fetching a model's files, on stderr: a bar on a terminal, and otherwise a line for each step."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from nla.support.display import plain, visible
from nla.support.wheels import Report


@contextmanager
def fetching(what: str) -> Iterator[Report]:
    """Yield the function to report steps to; `what` is shown until a first step is reported."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    shown: set[str] = set()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(visible(what), total=None)

        def report(step: str, share: float | None) -> None:
            progress.update(bar, description=visible(step), completed=share or 0, total=None if share is None else 1)
            if not console.is_terminal and step not in shown:
                shown.add(step)
                console.print(plain(step), highlight=False, soft_wrap=True)

        yield report
