"""Tell a user whose own package hides one of ours, instead of `No module named 'tasks._shared'`.

Some of our packages have names that others use too (`tasks`, `reports`). Python takes the first one on its search path, and the current
folder stands first under `python -m`, in notebooks, and where PYTHONPATH names it.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import ModuleType

from nla.support.display import visible
from nla.support.errors import ConfigError

_ROOT = Path(__file__).parents[2]
"""The folder in which our packages lie side by side."""
_OURS = ("audit", "graders", "nla", "reports", "tasks")


class HiddenPackageError(ConfigError, ModuleNotFoundError):
    """A package of ours cannot be imported because another one of its name comes first."""


def hiding(name: str | None) -> str | None:
    """Return a sentence on what hides a module of ours that was not found; None if nothing does, or if it is no module of ours.

    Args:
        name: the full name of the module.
    """
    package, _, rest = (name or "").partition(".")
    found = sys.modules.get(package)
    if package not in _OURS or not rest or found is None or not _exists(name or ""):
        return None
    theirs = _location(found)
    if theirs is None or theirs.resolve() in (_ROOT / package, _ROOT / package / "__init__.py"):
        return None
    ours = f"the package `{package}` of awareness-audit ({visible(_ROOT / package)})"
    return (
        f"{visible(theirs)} hides {ours}, which is needed here. Rename it, or keep its folder off Python's search path: start `audit`, "
        "`nla` and `inspect` by these names and not by `python -m`, and leave the folder out of PYTHONPATH."
    )


def _exists(name: str) -> bool:
    path = _ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def _location(module: ModuleType) -> Path | None:
    """Where a module lies: its file, or the folder of a package without `__init__.py`."""
    if module.__file__ is not None:
        return Path(module.__file__)
    return next((Path(folder) for folder in getattr(module, "__path__", ())), None)


class _Last(MetaPathFinder):
    """Asked for a module that nobody has found."""

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> None:
        """Find nothing.

        Raises:
            HiddenPackageError: the module is one of ours, and another package hides it.
        """
        if said := hiding(fullname):
            raise HiddenPackageError(said)


def tell_of_hidden_packages() -> None:
    """From now on, an import that fails because another package hides ours says so."""
    if not any(isinstance(finder, _Last) for finder in sys.meta_path):
        sys.meta_path.append(_Last())
