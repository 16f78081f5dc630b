"""Graders turn an explanation or an assistant turn into YES / NO / UNCLEAR with evidence. Each is a module here, found by name."""

import importlib
import inspect
import pkgutil
from types import ModuleType

from graders.base import Grader
from nla.errors import ConfigError
from nla.found import split_spec


def grader_names() -> list[str]:
    """Names a user can give as `-T grader=NAME`: the modules of this package that have a `grader` function."""
    modules = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name for name in modules if hasattr(importlib.import_module(f"{__name__}.{name}"), "grader"))


def build_grader(spec: str) -> Grader:
    """The grader of a name, with options for one that takes any: `rules`, `judge`, `judge:batch=8:blurb=none`.

    Raises:
        ConfigError: there is none of that name, or it has no such option.
    """
    name, options = split_spec(spec)
    factory = _module(name).grader
    if options and not inspect.signature(factory).parameters:
        raise ConfigError(f"grader '{name}' takes no options; found {', '.join(options)}.")
    built: Grader = factory(**options)
    return built


def is_free(spec: str) -> bool:
    """Whether grading costs nothing: no key is needed and no model role asked. A module that does not say so (`FREE`) may cost something.

    Raises:
        ConfigError: there is no grader of that name.
    """
    return bool(getattr(_module(split_spec(spec)[0]), "FREE", False))


def _module(name: str) -> ModuleType:
    if name not in grader_names():
        raise ConfigError(f"no grader named '{name}'; there are: {', '.join(grader_names())}.")
    return importlib.import_module(f"{__name__}.{name}")
