"""Further readers of the known groups, which only `audit readers` takes: one module each, found by name. A new reader is one new file.

A module has `build(groups) -> list[Measure]`; it returns none where what it needs (an autoencoder, an oracle) is not there for the model.
Readers that need a grader lie above this package; their package names such a function in the entry-point group `nla.organism_readers`.
"""

from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

from nla.organisms.groups import KnownGroups
from nla.organisms.measures import Measure, all_measures
from nla.support.plugins import PluginPackage

GROUP = "nla.organism_readers"
SPOKEN = "verbalized"
"""The measure of the model's own words, which reads no vector."""
_PACKAGE = PluginPackage("nla.organisms.readers", Path(__file__).parent, "reader")


def all_readers(groups: KnownGroups) -> list[Measure]:
    """Return every reader of vectors there is for a model: the measures of `nla organism check`, and those of this package."""
    own = [reader for name in _PACKAGE.names() for reader in import_module(f"{_PACKAGE.package}.{name}").build(groups)]
    graded = [reader for entry in sorted(entry_points(group=GROUP), key=lambda point: point.name) for reader in entry.load()(groups)]
    return [*(measure for measure in all_measures(groups) if measure.name != SPOKEN), *own, *graded]
