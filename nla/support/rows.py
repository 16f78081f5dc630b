"""Rows of data files (parquet, CSV, JSON, JSON lines), and ids made from content."""

import csv
import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nla.support.display import visible
from nla.support.errors import DataError, first_line

Row = dict[str, Any]
_LONGEST_CELL = 100_000_000
"""Characters of a CSV cell; the csv module's own limit of 131,072 is shorter than some transcripts."""
_SURROGATE = re.compile("[\ud800-\udfff]")


def read_file(path: Path) -> list[Row]:
    """Return the rows of a parquet, CSV, JSON or JSONL file. Lone surrogates in JSON become U+FFFD, as no tokenizer takes them.

    Raises:
        DataError: there is no such file, its suffix is not one of these, or it cannot be parsed.
    """
    readers: dict[str, Callable[[Path], Any]]
    readers = {".parquet": _parquet, ".csv": _csv, ".json": _json, ".jsonl": _jsonl, ".ndjson": _jsonl}
    if not os.path.isfile(path):  # unlike Path.is_file, False for names that are too long
        raise DataError(
            f"source '{visible(path, limit=200)}' is not a file; give hub, bundled, or the path of a parquet, CSV, JSON or JSONL file."
        )
    if path.suffix.lower() not in readers:
        raise DataError(f"source '{path}' ends in '{path.suffix}'; expected one of {', '.join(readers)}.")
    try:
        rows = readers[path.suffix.lower()](path)
    except MemoryError:
        raise
    except Exception as ex:  # the libraries raise many kinds
        raise DataError(f"source '{path}' cannot be read: {first_line(ex)}") from ex
    if not isinstance(rows, list) or not all(isinstance(row, dict) and all(isinstance(name, str) for name in row) for row in rows):
        raise DataError(f"source '{path}' does not hold rows; expected objects with named columns, and no row longer than the header.")
    return rows


def _parquet(path: Path) -> list[Row]:
    import pyarrow.parquet as pq

    rows: list[Row] = pq.read_table(path).to_pylist()
    return rows


def _csv(path: Path) -> list[Any]:
    # Every cell stays a text: a choice "None", "NA" or "1.50" means just that.
    csv.field_size_limit(_LONGEST_CELL)
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def _json(path: Path) -> Any:
    return _whole_characters(json.loads(path.read_text(encoding="utf-8-sig")))


def _jsonl(path: Path) -> list[Any]:
    # not splitlines(): texts may hold other line separators
    return [_whole_characters(json.loads(line)) for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]


def _whole_characters(value: Any) -> Any:
    """Return a parsed JSON value with U+FFFD for each lone surrogate."""
    if isinstance(value, str):
        return value if value.isascii() else _SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_whole_characters(item) for item in value]
    if isinstance(value, dict):
        return {_whole_characters(key): _whole_characters(item) for key, item in value.items()}
    return value


def content_id(*parts: Any) -> str:
    """Return a stable id for an item of a data set without ids: 12 hex digits of the sha256 of its content."""
    text = json.dumps(parts, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
