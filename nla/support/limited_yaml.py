"""YAML of unknown origin, read within limits: no aliases (of which less than 1 kB can describe gigabytes), bounded size and depth."""

import os
from pathlib import Path
from typing import Any

import yaml

MAX_BYTES = 262_144
"""Longest file. A sidecar has about 2 kB."""
MAX_DEPTH = 20
"""Deepest nesting of lists and mappings."""


class _LimitedLoader(yaml.SafeLoader):
    """The safe loader (plain values only), which refuses aliases and deep nesting before it builds anything."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose one node; the base class calls this for each value, however deep."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it uses an alias (*NAME), which is not allowed here; write the value out.")
        if self.depth >= MAX_DEPTH:
            raise yaml.YAMLError(f"it is nested deeper than {MAX_DEPTH} levels.")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def read_yaml(path: Path) -> Any:
    """Return the value of a YAML file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, is longer than `MAX_BYTES`, uses an alias, is nested too deeply, or is not YAML.
    """
    if not os.path.isfile(path):
        if os.path.lexists(path):
            raise ValueError("it is not a regular file")
        raise FileNotFoundError(path)
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise ValueError(f"it is longer than {MAX_BYTES:,} bytes")
        return yaml.load(raw.decode("utf-8"), Loader=_LimitedLoader)
    except ValueError:
        raise
    except (OSError, yaml.YAMLError, RecursionError, OverflowError, AttributeError, KeyError, TypeError, IndexError) as ex:
        # PyYAML lets errors of other classes out for odd numbers, dates and tags
        raise ValueError(" ".join(str(ex).split())[:300] or type(ex).__name__) from ex
