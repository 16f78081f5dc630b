"""Task files, found by name or by path."""

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inspect_ai import Task

from nla.support.errors import ConfigError
from nla.support.paths import user_path


def task_function(name: str) -> Callable[..., Task]:
    """The task function of a file in `tasks/` (by name) or of any task file (by path), found under the file's own name.

    Raises:
        ConfigError: no such task.
    """
    path = user_path(name)
    module: Any
    if path.suffix == ".py" and path.is_file():
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    else:
        if not name.isidentifier() or importlib.util.find_spec(f"tasks.{name}") is None:
            raise ConfigError(f"there is no task '{name}'; known: {', '.join(task_names())}, or the path of a task file.")
        module = importlib.import_module(f"tasks.{name}")
    found = getattr(module, path.stem, None)
    if not callable(found):
        raise ConfigError(f"{name} has no function '{path.stem}'; a task file holds a @task function of its own name.")
    maker: Callable[..., Task] = found
    return maker


def task_names() -> list[str]:
    """Names of all files in `tasks/`."""
    package = importlib.import_module("tasks")
    assert package.__file__ is not None
    return sorted(path.stem for path in Path(package.__file__).parent.glob("*.py") if not path.stem.startswith("_"))
