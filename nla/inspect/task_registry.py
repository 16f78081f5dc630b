"""Inspect's entry point for tasks: `inspect eval tasks/mmlu`, wherever the package is installed.

No task is imported before one is asked for: other projects have modules named `tasks` too, and a task file of theirs that imports its own
must not get ours, only because Inspect loads every entry point when it starts.
"""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inspect_ai import Task
from inspect_ai._util.registry import RegistryInfo, registry_add, registry_has

_FOLDER = Path(__file__).parents[2] / "tasks"


def _register() -> None:
    """Register every task file as `tasks/NAME`, as Inspect itself does where the package lies in site-packages."""
    for name in sorted(path.stem for path in _FOLDER.glob("[!_]*.py")):
        info = RegistryInfo(type="task", name=f"tasks/{name}", metadata={"attribs": {}, "params": []})
        if not registry_has("task", info.name):
            registry_add(_maker(name), info)


def _maker(name: str) -> Callable[..., Task]:
    """Return a task function that imports the task when it is called; the task itself checks its parameters."""

    def make(**parameters: Any) -> Task:
        task: Task = getattr(importlib.import_module(f"tasks.{name}"), name)(**parameters)
        return task

    return make


_register()
