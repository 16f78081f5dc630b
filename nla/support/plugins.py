"""Plug-ins: modules of a package that are found by their names, such as verbalizers and graders.

A new plug-in is one new file; nothing else has to be edited. Names are listed without importing the modules, because some of them
import torch.
"""

import importlib
import pkgutil
import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from nla.support.errors import ConfigError, near_name


@dataclass(frozen=True)
class PluginPackage:
    """A package whose modules are plug-ins of one kind."""

    package: str
    """Dotted name of the package."""
    folder: Path
    """Where its modules lie."""
    kind: str
    """What a plug-in is called in messages, e.g. `verbalizer`."""
    others: frozenset[str]
    """Modules of the package that are no plug-ins."""

    def names(self) -> list[str]:
        """Names a user can give: the modules of the package, without those that start with an underscore."""
        modules = (module.name for module in pkgutil.iter_modules([str(self.folder)]))
        return sorted(name for name in modules if name not in self.others and not name.startswith("_"))

    def check(self, spec: str) -> str:
        """The plug-in's name in `spec` (`NAME` or `NAME:option=value`).

        Raises:
            ConfigError: there is no plug-in of that name.
        """
        name, _ = split_spec(spec)
        if name not in self.names():
            known = self.names()
            raise ConfigError(f"There is no {self.kind} named '{name}'; expected one of {', '.join(known)}.{near_name(name, known)}")
        return name

    def load(self, spec: str) -> ModuleType:
        """The module of the plug-in that `spec` names.

        Raises:
            ConfigError: there is no plug-in of that name.
        """
        return importlib.import_module(f"{self.package}.{self.check(spec)}")


def split_spec(spec: str) -> tuple[str, dict[str, str]]:
    """Name and options of a plug-in as a user types them: `NAME` or `NAME:option=value:option=value`."""
    name, *options = re.split(r":(?=[a-z_]+=)", spec)
    return name, dict(option.split("=", 1) for option in options)


VERBALIZERS = PluginPackage("nla.verbalizers", Path(__file__).parents[1] / "verbalizers", "verbalizer", frozenset({"base"}))
"""The modules of `nla/verbalizers` (`-T verbalizer=NAME`). They are listed here so that a name can be checked without torch."""
