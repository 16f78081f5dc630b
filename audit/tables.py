"""The tables of the terminal that need no analysis: an empty one to fill, and the list of tasks. It imports nothing that takes seconds."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from nla.support.display import plain

if TYPE_CHECKING:
    from audit.running.task_list import TaskListing


def empty_table(title: str, *headings: str, left: Sequence[str] = ()) -> Table:
    """A table without rows; columns named in `left` are left-aligned and may wrap, the others hold numbers."""
    table = Table(title=plain(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    for heading in headings:
        is_text = heading in left
        table.add_column(heading, justify="left" if is_text else "right", overflow="fold", no_wrap=not is_text)
    return table


def tasks_table(listings: Sequence["TaskListing"]) -> Table:
    """One row per task: what it measures, its role, its data and their licence."""
    table = empty_table("Tasks", "task", "role", "items", "data", "licence", left=("task", "role", "data", "licence"))
    for listing in listings:
        table.add_row(plain(listing.name), listing.role, str(listing.bundled or ""), plain(listing.state), plain(listing.licence))
    return table
