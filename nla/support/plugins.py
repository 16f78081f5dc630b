"""Plug-ins: modules of a package that are looked up by name, such as verbalizers and graders.

A new plug-in is one new file; nothing else has to be edited. Names are listed without importing the modules, because some of them
import torch.
"""

import importlib
import inspect
import pkgutil
import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from nla.support.display import visible
from nla.support.errors import ConfigError, near_name

_SHOWN = 80
"""Characters of a mistyped name or value that a message repeats."""


@dataclass(frozen=True)
class PluginPackage:
    """A package whose modules are plug-ins of one kind."""

    package: str
    """Dotted name of the package."""
    folder: Path
    """The folder that holds its modules."""
    kind: str
    """What messages call a plug-in, e.g. `verbalizer`."""
    factory: str = "build"
    """The function that makes a plug-in. The modules that define it, or import it, are the plug-ins; all others are helpers."""

    def names(self) -> list[str]:
        """Return the names a user can give: the modules of the package that have the factory, as their source says."""
        imported = rf"^from \S+ import (?:[^(\n]*|\([^)]*)\b{self.factory}\b"
        has_factory = re.compile(rf"^(async )?def {self.factory}\(|^{self.factory}\s*[:=]|{imported}", re.MULTILINE)
        modules = {module.name: module.ispkg for module in pkgutil.iter_modules([str(self.folder)])}
        files = {
            name: self.folder / name / "__init__.py" if is_package else self.folder / f"{name}.py" for name, is_package in modules.items()
        }
        return sorted(name for name, file in files.items() if file.is_file() and has_factory.search(file.read_text(encoding="utf-8")))

    def check(self, spec: str) -> str:
        """Return the plug-in's name in `spec` (`NAME` or `NAME:option=value`).

        Raises:
            ConfigError: there is no plug-in with this name, or an option is given twice.
        """
        name, _ = split_spec(spec)
        known = self.names()
        if name not in known:
            shown = visible(name, limit=_SHOWN)
            raise ConfigError(f"There is no {self.kind} named '{shown}'; expected one of {', '.join(known)}.{near_name(name, known)}")
        return name

    def load(self, spec: str) -> ModuleType:
        """Import and return the module of the plug-in that `spec` names.

        Raises:
            ConfigError: there is no plug-in with this name.
        """
        return importlib.import_module(f"{self.package}.{self.check(spec)}")

    def build(self, spec: str, *arguments: object) -> Any:
        """Return the plug-in that `spec` names, made by its factory from these arguments and the options of `spec`.

        Raises:
            ConfigError: there is no plug-in with this name, or it has no such option.
        """
        name, options = split_spec(spec)
        factory = getattr(self.load(spec), self.factory)
        parameters = list(inspect.signature(factory).parameters.values())
        given = {parameter.name for parameter in parameters[: len(arguments)]}
        accepted = parameters[len(arguments) :]
        takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in accepted)
        allowed = {parameter.name for parameter in accepted}
        wrong = [option for option in options if option in given or not (takes_any or option in allowed)]
        if wrong:
            shown = visible(", ".join(wrong), limit=_SHOWN)
            raise ConfigError(
                f"{self.kind} '{name}' has no option {shown}." if accepted else f"{self.kind} '{name}' takes no options; found {shown}."
            )
        return factory(*arguments, **options)


def split_spec(spec: str) -> tuple[str, dict[str, str]]:
    """Return name and options of a plug-in as a user types them: `NAME` or `NAME:option=value:option=value`.

    Raises:
        ConfigError: an option is given twice.
    """
    name, *options = re.split(r":(?=[a-z_]+=)", spec)
    pairs = [option.split("=", 1) for option in options]
    if repeated := [key for key in dict(pairs) if sum(key == other for other, _ in pairs) > 1]:
        raise ConfigError(f"option {visible(repeated[0], limit=_SHOWN)} is given more than once; give it once.")
    return name, dict(pairs)


VERBALIZERS = PluginPackage("nla.verbalizers", Path(__file__).parents[1] / "verbalizers", "verbalizer")
"""The modules of `nla/verbalizers` (`-T verbalizer=NAME`). They are named here so that a name can be checked without torch."""
