"""What there is to choose from by name, found by looking at the files, without importing torch."""

import pkgutil
from pathlib import Path

from nla.errors import ConfigError

_FOLDER = Path(__file__).parent / "verbalizers"
_CONTRACT = "base"


def verbalizer_names() -> list[str]:
    """Names a user can give as `-T verbalizer=NAME`: the modules of `nla/verbalizers`."""
    return sorted(module.name for module in pkgutil.iter_modules([str(_FOLDER)]) if module.name != _CONTRACT)


def check_verbalizer_name(name: str) -> None:
    """Raise a `ConfigError` that lists the names there are, if `name` is none of them."""
    if name not in verbalizer_names():
        raise ConfigError(f"no verbalizer named '{name}'; there are: {', '.join(verbalizer_names())}.")
