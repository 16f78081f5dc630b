"""List tasks (`audit tasks`), download their data (`audit data fetch`) and create a new task file (`audit new-task`)."""

import ast
import keyword
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import scan_cache_dir
from huggingface_hub.errors import CacheNotFound

from audit.task_files import task_info, task_names
from nla.support.display import visible
from nla.support.errors import ConfigError, DataError, first_line, near_name
from nla.support.files import replacing
from tasks._data import DataSource, Hub, Origin
from tasks._info import Role, TaskInfo

_TEMPLATE = Path(__file__).parent / "templates" / "new_task.py.txt"
_LONGEST_NAME = 60
"""Longest name of a task, in characters: it becomes a file name."""


@dataclass(frozen=True, kw_only=True)
class TaskListing:
    """A row of `audit tasks`: what a task measures, where its data come from, and whether they are on this machine."""

    name: str
    title: str
    role: Role
    origin: Origin | None
    """Where the data set is published; None for a task that wraps another one."""
    bundled: int
    """Number of items in the data set that is part of the project."""
    hub: str
    """Hub id and the first digits of the revision; empty if the task has no data set on the hub with a fixed revision."""
    licence: str
    state: str
    """Where the data are: on the hub (cached or to fetch), in this project, or in a file that the user gives."""


def task_listings() -> list[TaskListing]:
    """Return a listing of every task file in `tasks/`, in the order of their names."""
    cached = _cached_revisions()
    return [_listing(name, task_info(name), cached) for name in task_names()]


def _listing(name: str, info: TaskInfo, cached: set[tuple[str, str]]) -> TaskListing:
    data = info.data
    return TaskListing(
        name=name,
        title=info.title,
        role=info.role,
        origin=data.origin if data else None,
        bundled=len(data.rows("bundled")) if data else 0,
        hub=f"{data.hub.path}@{data.hub.revision[:7]}" if data and data.hub else "",
        licence=info.licence,
        state=_state(data, cached),
    )


def _state(data: DataSource | None, cached: set[tuple[str, str]]) -> str:
    if data is None:
        return "that of the task it wraps"
    if data.hub is not None:
        return f"hub ({'cached' if (data.hub.path, data.hub.revision) in cached else 'to fetch'}) or bundled"
    return "bundled: the project's own scenarios" if data.origin is Origin.OWN else "a file that you give, or bundled"


def _cached_revisions() -> set[tuple[str, str]]:
    try:
        repos = scan_cache_dir().repos
    except (CacheNotFound, OSError):
        return set()
    return {(repo.repo_id, revision.commit_hash) for repo in repos if repo.repo_type == "dataset" for revision in repo.revisions}


def fetch_data(name: str) -> list[tuple[str, int]]:
    """Download the hub data of a task to the cache, and return (hub id and revision, number of rows) of each data set.

    Afterwards the task can run with `HF_HUB_OFFLINE=1`, since it reads the data from the cache.

    Raises:
        ConfigError: there is no such task, or its data are not on the hub as a single data set.
        FetchError: the hub cannot be reached, or the data are gated or have moved.
    """
    if name not in task_names():
        raise _no_task(name)
    info = task_info(name)
    data = [source for source in (info.data, info.examples) if source is not None and source.hub is not None]
    if not data:
        raise ConfigError(f"The data of {name} are not pinned on the hub; give a file (-T source=PATH), or use the bundled items.")
    option = next((source.subsets for source in data if source.subsets is not None), None)
    if option is not None:
        raise ConfigError(
            f"The data of {name} are several data sets on the hub; run the task with -T {option}=NAME, which downloads the one it needs."
        )
    return [(_pinned(source.hub), len(source.rows("hub"))) for source in data if source.hub is not None]


def _pinned(hub: Hub) -> str:
    return f"{hub.path}@{hub.revision}"


def _no_task(name: str) -> ConfigError:
    known = task_names()
    return ConfigError(f"There is no task '{visible(name, limit=60)}'; expected one of {', '.join(known)}.{near_name(name, known)}")


def new_task(name: str, folder: Path) -> list[Path]:
    """Write a runnable task file with twelve sample items into a folder of tasks, and return both paths.

    Raises:
        ConfigError: the name is not valid for a task, or one of the files exists.
        DataError: the folder cannot be written to; in this case neither file is left.
    """
    _check_name(name)
    code, data = folder / f"{name}.py", folder / "data" / f"{name}.jsonl"
    items = [f'{{"question": "What is {i} + {i + 3}?", "answer": "{2 * i + 3}"}}\n' for i in range(2, 14)]
    existing = [visible(path) for path in (code, data) if (path.exists() or path.is_symlink()) and not _holds(path, "".join(items))]
    if existing:
        raise ConfigError(f"{' and '.join(existing)} exists already; choose another name, or delete it.")
    try:
        data.parent.mkdir(parents=True, exist_ok=True)
    except OSError as ex:
        raise DataError(f"{visible(data.parent)} cannot be created: {ex.strerror or first_line(ex)}; give another folder.") from None
    written: list[Path] = []
    try:
        for path, text in ((data, "".join(items)), (code, _template().replace("NAME", name))):
            with replacing(path) as scratch:
                scratch.write_text(text, encoding="utf-8")
            written.append(path)
    except BaseException:
        for path in written:
            with suppress(OSError):
                path.unlink()
        raise
    return [code, data]


def _holds(path: Path, text: str) -> bool:
    """Whether a file holds just this text: the sample items that a killed `audit new-task` has left."""
    try:
        return path.is_file() and not path.is_symlink() and path.read_text(encoding="utf-8") == text
    except (OSError, ValueError):
        return False


def _template() -> str:
    return _TEMPLATE.read_text("utf-8")


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name, re.ASCII) or keyword.iskeyword(name) or len(name) > _LONGEST_NAME:
        raise ConfigError(
            f"'{visible(name, limit=60)}' cannot be a task's name; give at most {_LONGEST_NAME} lower-case letters, digits and _, "
            "beginning with a letter, and not a Python keyword."
        )
    if name in _names_used():
        raise ConfigError(f"'{name}' cannot be a task's name, because task files use that name for something else; choose another name.")


def _names_used() -> set[str]:
    """Return the names that the template's code uses. A task function with such a name would replace what the code refers to."""
    return {node.id for node in ast.walk(ast.parse(_template())) if isinstance(node, ast.Name)} | {"hub", "bundled"}
