"""The tasks there are: `audit tasks` lists them, `audit data fetch` gets their data, `audit new-task` starts another."""

import importlib
import keyword
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import scan_cache_dir
from huggingface_hub.errors import CacheNotFound

from audit.running.task_files import task_names
from nla.support.errors import ConfigError
from nla.support.files import replacing
from tasks._shared import Source

_TEMPLATE = Path(__file__).parent / "templates" / "new_task.py.txt"


@dataclass(frozen=True)
class TaskInfo:
    """A task file: what it measures, where its data come from, and whether they are on this machine."""

    name: str
    title: str
    role: str
    bundled: int
    """Items of the set that ships with the project."""
    hub: str
    """Hub id and the first digits of the revision, or nothing."""
    licence: str
    state: str
    """`bundled`, `hub: cached`, `hub: to fetch`, or `file of yours`."""


def task_infos() -> list[TaskInfo]:
    """All files in `tasks/`, by name."""
    cached = _cached_revisions()
    return [_info(name, cached) for name in task_names()]


def _info(name: str, cached: set[tuple[str, str]]) -> TaskInfo:
    module = importlib.import_module(f"tasks.{name}")
    found = sources(module)
    text = " ".join((module.__doc__ or "").split())
    hubs = [source.hub for source in found if source.hub is not None]
    revision = getattr(module, "REVISION", "")
    hub_id = hubs[0].path if hubs else _hub_in(text) if revision else ""
    licence = re.search(r"\(([^()]*(?:licence|CC-BY|Apache|MIT|ODC|public domain)[^()]*)\)", text)
    if hub_id:
        state = "bundled; hub: " + ("cached" if (hub_id, revision) in cached else "to fetch")
    else:
        state = "bundled; or a file of yours" if _data(name).is_file() else "wraps another task"
    title = (module.__doc__ or "").splitlines()[0].strip()
    role = "deployment control" if re.search(r'role="deployment control"', Path(str(module.__file__)).read_text("utf-8")) else "benchmark"
    bundled = sum(1 for line in _data(name).read_text("utf-8").split("\n") if line.strip()) if _data(name).is_file() else 0
    return TaskInfo(name, title, role, bundled, f"{hub_id}@{revision[:7]}" if hub_id else "", licence.group(1) if licence else "", state)


def sources(module: Any) -> list[Source]:
    """The data sources that stand in a task's module."""
    return [value for value in vars(module).values() if isinstance(value, Source)]


def _hub_in(text: str) -> str:
    found = re.search(r"huggingface\.co/datasets/([\w.-]+/[\w.-]+)", text)
    return found.group(1) if found else ""


def _data(name: str) -> Path:
    package = importlib.import_module("tasks")
    return Path(str(package.__file__)).parent / "data" / f"{name}.jsonl"


def _cached_revisions() -> set[tuple[str, str]]:
    try:
        repos = scan_cache_dir().repos
    except (CacheNotFound, OSError):
        return set()
    return {(repo.repo_id, revision.commit_hash) for repo in repos if repo.repo_type == "dataset" for revision in repo.revisions}


def fetch_data(name: str) -> list[tuple[str, int]]:
    """Get the hub data of a task into the cache; (source, rows) of each. With `HF_HUB_OFFLINE=1` they are then read from there.

    Raises:
        ConfigError: no such task, or one whose data are not on the hub.
        FetchError: the hub is out of reach, or the data are gated or moved.
    """
    if name not in task_names():
        raise ConfigError(f"there is no task '{name}'; known: {', '.join(task_names())}.")
    found = [source for source in sources(importlib.import_module(f"tasks.{name}")) if source.hub is not None]
    if not found:
        raise ConfigError(f"the data of {name} are not pinned on the hub as one set: give a file of yours, or take the bundled items.")
    return [(f"{source.hub.path}@{source.hub.revision}" if source.hub else "", len(source.rows("hub"))) for source in found]


def new_task(name: str, folder: Path) -> list[Path]:
    """Write a runnable task file with twelve stand-in items into a folder of tasks; returns the files.

    Raises:
        ConfigError: the name cannot be a task's, or one of the files is there already.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise ConfigError(f"'{name}' cannot be a task's name; give lower-case letters, digits and _, beginning with a letter.")
    code, data = folder / f"{name}.py", folder / "data" / f"{name}.jsonl"
    there = [str(path) for path in (code, data) if path.exists()]
    if there:
        raise ConfigError(f"{' and '.join(there)} is there already; choose another name, or delete it.")
    data.parent.mkdir(parents=True, exist_ok=True)
    items = [f'{{"question": "What is {i} + {i + 3}?", "answer": "{2 * i + 3}"}}\n' for i in range(2, 14)]
    for path, text in ((data, "".join(items)), (code, _TEMPLATE.read_text("utf-8").replace("NAME", name))):
        with replacing(path) as scratch:
            scratch.write_text(text, encoding="utf-8")
    return [code, data]
