"""What a task states about itself: title, role in an audit, data and licence. `@measured` attaches it to the task function."""

from dataclasses import dataclass
from enum import StrEnum

from tasks._data import DataSource


class Role(StrEnum):
    """How an audit uses a task's awareness rate."""

    BENCHMARK = "benchmark"
    """An evaluation, in the words and form in which models meet it."""
    DEPLOYMENT_CONTROL = "deployment control"
    """Real-use traffic: the noise floor is measured on it."""
    GAME = "game"
    """Neither: a game about a model, which has no awareness rate. An audit does not take it."""


@dataclass(frozen=True, kw_only=True)
class TaskInfo:
    """A task's description of itself.

    Args:
        title: name and subject in one line.
        blurb: one sentence on what the task is, for graders that use it.
        role: how an audit uses its rate.
        data: where its items come from; None for a task that wraps another one.
        examples: where solved examples for few-shot prompts come from, if the task has any.
        licence: licence of the data set, as its publisher states it.
    """

    title: str
    blurb: str
    role: Role
    data: DataSource | None = None
    examples: DataSource | None = None
    licence: str = ""
