"""Load task files by name or by path."""

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from inspect_ai import Task

from nla.support.display import visible
from nla.support.errors import ConfigError, HarnessError, first_line, near_name
from nla.support.paths import user_path
from tasks._info import TaskInfo


def task_function(name: str) -> Callable[..., Task]:
    """Return the task function of a task file, which has the same name as the file.

    Args:
        name: name of a file in `tasks/`, or path of any task file.

    Raises:
        ConfigError: there is no such task, its file cannot be loaded, or the file has no such function.
    """
    path = Path(name) if name in task_names() else user_path(name)
    module: Any
    if name in task_names():
        module = importlib.import_module(f"tasks.{name}")
    elif path.suffix == ".py" and path.is_file():
        module = _load(path)
    else:
        known = task_names()
        raise ConfigError(
            f"There is no task '{visible(name, limit=200)}'; expected the path of a task file or one of {', '.join(known)}."
            f"{near_name(name, known)}"
        )
    function = getattr(module, path.stem, None)
    if not callable(function):
        raise ConfigError(f"{visible(name)} has no function '{visible(path.stem)}'; a task file defines a @task function with its name.")
    maker: Callable[..., Task] = function
    return maker


def task_info(name: str) -> TaskInfo:
    """Return the `TaskInfo` of a task.

    Args:
        name: name of a file in `tasks/`, or path of a task file.

    Raises:
        ConfigError: there is no such task, or it is not decorated with `measured`.
    """
    info = getattr(task_function(name), "info", None)
    if not isinstance(info, TaskInfo):
        raise ConfigError(f"The task {visible(name)} has no TaskInfo; decorate its function with @task and @measured(INFO).")
    return info


def _load(path: Path) -> ModuleType:
    """Execute a user's task file and return it as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except HarnessError:
        raise
    except Exception as ex:  # the user's code may raise anything
        raise ConfigError(f"{visible(path)} cannot be loaded: {type(ex).__name__}: {visible(first_line(ex))}; correct the file.") from ex
    return module


def task_names() -> list[str]:
    """Return the names of all task files in `tasks/`, in alphabetical order."""
    package = importlib.import_module("tasks")
    assert package.__file__ is not None
    return sorted(path.stem for path in Path(package.__file__).parent.glob("*.py") if not path.stem.startswith("_"))
