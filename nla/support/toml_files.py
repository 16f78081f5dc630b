"""Read a TOML file that a user wrote, and say what is wrong with its fields."""

import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nla.support.display import visible
from nla.support.errors import ConfigError, first_line

_MOST_PROBLEMS = 4


def read_toml(path: Path, hint: str = "") -> dict[str, Any]:
    """Return the fields of a TOML file, unchecked.

    Args:
        path: the file.
        hint: a sentence that follows where the file cannot be read, such as what it is expected to be.

    Raises:
        ConfigError: the file cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as ex:
        raise ConfigError(" ".join(filter(None, [f"{path} cannot be read: {ex.strerror}.", hint]))) from ex
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as ex:
        raise ConfigError(f"{path} is not TOML: {first_line(ex)}") from ex


def problems_of(ex: ValidationError) -> str:
    """Return the first fields that a model refused, each with the reason."""
    return "; ".join(
        f"{visible('.'.join(map(str, error['loc'])))}: {error['msg'].removeprefix('Value error, ')}"
        for error in ex.errors()[:_MOST_PROBLEMS]
    )
