"""Rows of data files (parquet, CSV, JSON, JSON lines), and ids made from content."""

import csv
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nla.support.errors import DataError

Row = dict[str, Any]


def read_file(path: Path) -> list[Row]:
    """Rows of a parquet, CSV, JSON or JSONL file.

    Raises:
        DataError: no such file, a suffix that is none of these, or a file that cannot be parsed.
    """
    readers: dict[str, Callable[[Path], list[Row]]] = {".parquet": _parquet, ".csv": _csv, ".json": _json, ".jsonl": _jsonl}
    if not path.is_file():
        raise DataError(f"source '{path}' is not a file; give hub, bundled, or the path of a parquet, CSV, JSON or JSONL file.")
    if path.suffix.lower() not in readers:
        raise DataError(f"source '{path}' ends in '{path.suffix}'; expected one of {', '.join(readers)}.")
    try:
        rows = readers[path.suffix.lower()](path)
    except Exception as ex:  # the libraries raise many kinds
        raise DataError(f"source '{path}' cannot be read: {str(ex).splitlines()[0] if str(ex) else type(ex).__name__}") from ex
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"source '{path}' does not hold rows; expected a list of objects with named columns.")
    return rows


def _parquet(path: Path) -> list[Row]:
    import pyarrow.parquet as pq

    rows: list[Row] = pq.read_table(path).to_pylist()
    return rows


def _csv(path: Path) -> list[Row]:
    # Every cell stays the text it is: a choice "None", "NA" or "1.50" means just that.
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def _json(path: Path) -> list[Row]:
    rows: list[Row] = json.loads(path.read_text(encoding="utf-8-sig"))
    return rows


def _jsonl(path: Path) -> list[Row]:
    # not splitlines(): texts may hold other line separators
    return [json.loads(line) for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]


def content_id(*parts: Any) -> str:
    """A stable id for an item of a data set without ids: 12 hex digits of the sha256 of its content."""
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False, default=str).encode()).hexdigest()[:12]
