"""Results as JSON files: dataclasses, tensors, paths and what contains them."""

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from nla.support.files import replacing


def as_json(value: Any) -> Any:
    """Return a value as what `json` can write: dataclasses as objects of their fields, tensors and arrays as lists, paths as texts."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value.tolist() if hasattr(value, "tolist") else value


def write_json(path: Path, result: Any) -> None:
    """Write a result as JSON, whole or not at all.

    Raises:
        DataError: the file cannot be written.
    """
    with replacing(path) as scratch:
        scratch.write_text(json.dumps(as_json(result), indent=1) + "\n", encoding="utf-8")
