"""Text to YES / NO / UNCLEAR with evidence.

Here belong the graders (each a module or package found by its name), the record of what a scorer found, the scorers, and labelled
texts. What touches weights belongs in `nla`, and statistics over many transcripts in `audit`.
"""

from pathlib import Path

from graders.base import Grader
from nla.support.plugins import PluginPackage

GRADERS = PluginPackage("graders", Path(__file__).parent, "grader", "grader")
"""The modules of this package that have a `grader` function (`-T grader=NAME`)."""


def grader_names() -> list[str]:
    """Names a user can give as `-T grader=NAME`."""
    return GRADERS.names()


def build_grader(spec: str) -> Grader:
    """The grader of a name, with options if it takes any: `rules`, `judge`, `judge:batch=8:blurb=none`.

    Raises:
        ConfigError: there is no grader of that name, or it has no such option.
    """
    built: Grader = GRADERS.build(spec)
    return built


def is_free(spec: str) -> bool:
    """Whether grading costs nothing: no key is needed and no model role is asked.

    A grader says so by `FREE = True` in its module; one that does not may cost something.

    Raises:
        ConfigError: there is no grader of that name.
    """
    return bool(getattr(GRADERS.load(spec), "FREE", False))
