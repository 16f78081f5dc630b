"""What there is to choose from by name, found by looking at the files, without importing torch."""

import pkgutil
import re
from pathlib import Path

from nla.errors import ConfigError

_FOLDER = Path(__file__).parent / "verbalizers"
_CONTRACT = "base"


def verbalizer_names() -> list[str]:
    """Names a user can give as `-T verbalizer=NAME`: the modules of `nla/verbalizers`."""
    return sorted(module.name for module in pkgutil.iter_modules([str(_FOLDER)]) if module.name != _CONTRACT)


def split_spec(spec: str) -> tuple[str, dict[str, str]]:
    """What a user typed for a grader or verbalizer, `NAME` or `NAME:option=value:option=value`, as name and options."""
    name, *typed = re.split(r":(?=[a-z_]+=)", spec)
    return name, dict(option.split("=", 1) for option in typed)


def check_verbalizer_name(spec: str) -> None:
    """Raise a `ConfigError` that lists the names there are, if the name in `spec` is none of them."""
    name, _ = split_spec(spec)
    if name not in verbalizer_names():
        raise ConfigError(f"no verbalizer named '{name}'; there are: {', '.join(verbalizer_names())}.")
