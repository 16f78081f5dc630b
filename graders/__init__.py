"""Graders turn an explanation or an assistant turn into YES / NO / UNCLEAR with evidence. Each is a module here, found by name."""

import importlib
import pkgutil

from graders.base import Grader
from nla.errors import ConfigError


def grader_names() -> list[str]:
    """Names a user can give as `-T grader=NAME`: the modules of this package that have a `grader` function."""
    modules = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name for name in modules if hasattr(importlib.import_module(f"{__name__}.{name}"), "grader"))


def build_grader(name: str) -> Grader:
    """The grader of that name.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in grader_names():
        raise ConfigError(f"no grader named '{name}'; there are: {', '.join(grader_names())}.")
    built: Grader = importlib.import_module(f"{__name__}.{name}").grader()
    return built
