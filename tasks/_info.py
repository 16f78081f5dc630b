"""What a task says of itself: its title, its role in an audit, its data and their licence. `@measured` attaches it to the task function."""

from dataclasses import dataclass
from enum import StrEnum

from tasks._shared import DataSource


class Role(StrEnum):
    """What a task's awareness rate stands for."""

    BENCHMARK = "benchmark"
    """An evaluation, in the words and form in which models meet it."""
    DEPLOYMENT_CONTROL = "deployment control"
    """Real-use traffic: the noise floor is measured on it."""


@dataclass(frozen=True, kw_only=True)
class TaskInfo:
    """A task's description of itself.

    Args:
        title: name and subject in one line.
        blurb: one sentence on what the task is, for graders that use it.
        role: what its rate stands for.
        data: where its items come from; None for a task that wraps another one.
        licence: licence of the data set, as its publisher states it.
    """

    title: str
    blurb: str
    role: Role
    data: DataSource | None = None
    licence: str = ""
