"""Load task files by name or by path."""

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from nla.support.display import visible
from nla.support.errors import ConfigError, HarnessError, first_line, near_name
from nla.support.paths import user_path
from nla.support.shadowing import HiddenPackageError, hiding

if TYPE_CHECKING:  # Inspect takes seconds to import, and a misspelt name is to be refused at once
    from inspect_ai import Task

    from tasks._info import TaskInfo


def check_task(name: str) -> None:
    """Check that a task exists, without loading it.

    Raises:
        ConfigError: `name` is neither that of a file in `tasks/` nor the path of a task file.
    """
    known = task_names()
    path = user_path(name)
    if name not in known and not (path.suffix == ".py" and path.is_file()):
        raise ConfigError(
            f"There is no task '{visible(name, limit=200)}'; expected the path of a task file or one of {', '.join(known)}."
            f"{near_name(name, known)}"
        )


def task_function(name: str) -> "Callable[..., Task]":
    """Return the task function of a task file, which has the same name as the file.

    Args:
        name: name of a file in `tasks/`, or path of any task file.

    Raises:
        ConfigError: there is no such task, its file cannot be loaded, or the file has no such function.
    """
    check_task(name)
    is_ours = name in task_names()
    path = Path(name) if is_ours else user_path(name)
    module: Any = importlib.import_module(f"tasks.{name}") if is_ours else _load(path)
    function = getattr(module, path.stem, None)
    if not callable(function):
        raise ConfigError(f"{visible(name)} has no function '{visible(path.stem)}'; a task file defines a @task function with its name.")
    maker: "Callable[..., Task]" = function
    return maker


def measured_task(name: str) -> "Callable[..., Task]":
    """Return the task function of a task that an audit can measure.

    Raises:
        ConfigError: see `task_function`; or the task is a game, which has no awareness rate.
    """
    from tasks._info import Role

    function = task_function(name)
    if getattr(getattr(function, "info", None), "role", None) is Role.GAME:
        raise ConfigError(f"The task {visible(name)} is a game about a model and has no awareness rate; run it with `inspect eval`.")
    return function


def task_info(name: str) -> "TaskInfo":
    """Return the `TaskInfo` of a task.

    Args:
        name: name of a file in `tasks/`, or path of a task file.

    Raises:
        ConfigError: there is no such task, or it is not decorated with `measured`.
    """
    from tasks._info import TaskInfo

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
    """Return the names of all task files in `tasks/`, in alphabetical order.

    Raises:
        HiddenPackageError: another package `tasks` hides ours.
    """
    package = importlib.import_module("tasks")
    if said := hiding("tasks._shared"):
        raise HiddenPackageError(said)
    assert package.__file__ is not None
    return sorted(path.stem for path in Path(package.__file__).parent.glob("*.py") if not path.stem.startswith("_"))
