"""Rows of a corpus file and their cells, checked: foreign files hold nulls, numbers in place of text, and invalid characters."""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nla.support.display import visible
from nla.support.errors import DataError, first_line
from nla.support.rows import Row, read_file

SUFFIXES = (".parquet", ".jsonl", ".ndjson", ".csv", ".txt", ".md")
_MAX_SHOWN, _MAX_COLUMNS = 40, 20
"""Characters of a foreign value, and column names, that a message repeats."""


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a parquet, JSONL, CSV or text file; a text file is one row with its stem as `doc_id`.

    Raises:
        DataError: no such file, another suffix, nothing in it, or not what its suffix says.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{path} is none of {', '.join(SUFFIXES)}; give one of these.")
    if not os.path.isfile(path):  # unlike Path.is_file, False for names that are too long
        there = "it is a folder" if os.path.isdir(path) else "there is no such file"
        raise DataError(f"{path} cannot be read: {there}. Give the path of a data file.")
    if suffix in (".txt", ".md"):
        try:
            return [{"text": path.read_text(encoding="utf-8-sig"), "doc_id": path.stem}]
        except (OSError, UnicodeDecodeError) as ex:
            raise DataError(f"{path} cannot be read: {first_line(ex)}. Expected text in UTF-8.") from ex
    rows = read_file(path)
    if not rows:
        raise DataError(f"{path} has no rows; give a file with at least one document.")
    return rows


def columns_of(rows: Sequence[Row]) -> list[str]:
    """Return the names of all columns, in the order in which they first appear."""
    return list(dict.fromkeys(name for row in rows for name in row))


def listed(columns: Sequence[str]) -> str:
    """Return column names for a message: a CSV file without a header has its first row's cells here, which may be long."""
    shown = ", ".join(visible(name, limit=_MAX_SHOWN) for name in columns[:_MAX_COLUMNS])
    return f"{shown}, …" if len(columns) > _MAX_COLUMNS else shown


def cell_text(row: Row, column: str, where: str) -> str:
    """Return a cell's text; a null cell is empty text.

    Raises:
        DataError: the cell holds something else than text, or characters that are not valid Unicode.
    """
    value = row.get(column)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"{where}: the column '{column}' holds {_shown(value)}, expected text. Name another column with `text_column`.")
    return _valid(value, column, where)


def cell_id(row: Row, column: str, where: str) -> str:
    """Return a row's id.

    Raises:
        DataError: the cell is empty, or neither text nor a number. Rows without ids could not be told apart, and the split into
            training and held-out documents is by id.
    """
    value = row.get(column)
    is_nan = isinstance(value, float) and math.isnan(value)
    if value is None or value == "" or is_nan or not isinstance(value, str | int | float):
        raise DataError(f"{where}: the column '{column}' holds {_shown(value)}, expected an id. Name another column with `id_column`.")
    return _valid(str(value), column, where)


def cell_messages(row: Row, column: str, where: str) -> list[dict[str, str]]:
    """Return the turns of a conversation, given as a list or as JSON text, with `role` and `content` only.

    Raises:
        DataError: the cell is not a list of objects with a role and a content that are text.
    """
    value: Any = row.get(column)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as ex:
            raise DataError(f"{where}: `{column}` is not JSON ({first_line(ex)}); expected a list of role and content.") from ex
    if not isinstance(value, list) or not value:
        raise DataError(f"{where}: `{column}` must be a list of role and content, but holds {_shown(value)}.")
    turns = []
    for turn in value:
        parts = {name: turn.get(name) if isinstance(turn, dict) else None for name in ("role", "content")}
        if not all(isinstance(part, str) for part in parts.values()):
            raise DataError(f"{where}: `{column}` must be a list of role and content, both text, but a turn is {_shown(turn)}.")
        turns.append({name: _valid(str(part), column, where) for name, part in parts.items()})
    return turns


def _valid(text: str, column: str, where: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as ex:
        lone = visible(text[ex.start])
        raise DataError(
            f"{where}: the column '{visible(column)}' holds {lone}, half of a surrogate pair, which is not a character. "
            "Write the file again in valid UTF-8."
        ) from None
    return text


def _shown(value: object) -> str:
    """Name a foreign value in a message: its type, and the beginning of what it holds."""
    if value is None:
        return "nothing (null)"
    text = str(value)[:_MAX_SHOWN] if isinstance(value, str | int | float | bool) else ""
    return f"{type(value).__name__} {visible(repr(text))}" if text else f"a {type(value).__name__}"
