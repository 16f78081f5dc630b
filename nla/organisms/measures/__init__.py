"""Measures of the known-groups test: one module each, found by name. A new measure is one new file.

A module has `build(groups) -> list[Measure]`. Measures that need a grader lie above this package; their package names a function of the
same kind in the entry-point group `nla.organism_measures`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Literal

from nla.organisms.groups import Case, KnownGroups
from nla.support.plugins import PluginPackage

GROUP = "nla.organism_measures"
Reads = Literal["every token", "sampled tokens", "conversation"]
_PACKAGE = PluginPackage("nla.organisms.measures", Path(__file__).parent, "measure")


@dataclass(frozen=True)
class Measure:
    """One way of reading a transcript."""

    name: str
    score: Callable[[Sequence[Case]], list[float]]
    """Gives one number per case; a higher one means more evaluation awareness."""
    flags_above: float | None = None
    """A case is flagged where its score is above this. None takes the score that 5 % of the fitted deployment cases exceed."""
    cheap: bool = True
    """Whether scoring takes next to no time. Only a cheap measure is also taken under unseen wordings of the trained families."""
    labels: int = 0
    """Labelled examples that it was fitted on; 0 for what needs none."""
    reads: Reads = "every token"
    """Which of a reply's vectors it reads; `conversation` where it reads none, but asks the model."""


def all_measures(groups: KnownGroups) -> list[Measure]:
    """Return every measure there is for a model, those of this package first."""
    own = [measure for name in _PACKAGE.names() for measure in import_module(f"{_PACKAGE.package}.{name}").build(groups)]
    return own + graded_measures(groups)


def graded_measures(groups: KnownGroups) -> list[Measure]:
    """Return the measures that need a grader."""
    return [measure for entry in sorted(entry_points(group=GROUP), key=lambda point: point.name) for measure in entry.load()(groups)]
