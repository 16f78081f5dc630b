"""Everything that a task file imports from this package, in one place."""

from nla.support.rows import content_id
from tasks._choices import LETTERS, check_choices, shuffled_choices
from tasks._conversation import conversation
from tasks._data import DataSource, Hub, Origin, check_sha256, dataset
from tasks._fields import DataRow
from tasks._info import Role, TaskInfo
from tasks._measured import measured

__all__ = [
    "LETTERS",
    "DataRow",
    "DataSource",
    "Hub",
    "Origin",
    "Role",
    "TaskInfo",
    "check_choices",
    "check_sha256",
    "content_id",
    "conversation",
    "dataset",
    "measured",
    "shuffled_choices",
]
