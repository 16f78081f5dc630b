"""Cells of a data set, read as the type that a task needs.

Data sets are untrusted. Whatever a cell holds, reading it gives a value of the right type or a `DataError` that names the task, the
row (counted from 1), the column, what was found, what was expected and what to do.

Cells of a CSV file are texts, so a list or an object is written there as JSON. Parquet and JSON hold them as they are.
"""

import json
import math
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from nla.support.display import visible
from nla.support.errors import DataError
from nla.support.rows import Row

_LONGEST_CELL, _MOST_COLUMNS = 60, 12
"""Characters of a cell, and names of columns, that a message shows."""


@dataclass(frozen=True)
class DataRow:
    """A row of a data set, or an object inside one of its cells.

    Args:
        values: the cells by column.
        task: name of the task that reads the row.
        source: where the row comes from: `hub`, `bundled` or a path.
        number: its position in the source, from 1.
        within: path of the cell that this object is in, such as `choices.` or `messages[2].`; empty for a whole row.
    """

    values: Row
    task: str
    source: str
    number: int
    within: str = ""

    def has(self, *names: str) -> bool:
        """Whether one of these columns holds something: neither null, NaN nor a blank text."""
        return any(_holds_something(self.values.get(name)) for name in names)

    def text(self, *names: str, blank: bool = False) -> str:
        """The text in the first of several columns that holds something.

        Args:
            names: columns, of which a row needs one.
            blank: whether the text may be empty.

        Raises:
            DataError: no such column, no text in it, or a text that is not valid Unicode.
        """
        name, value = self._cell(names)
        if not isinstance(value, str) or not (blank or value.strip()):
            raise self.unexpected(name, value, "a text")
        return self._valid(name, value)

    def scalar(self, *names: str) -> str:
        """A text, number or truth value, as text. Integral numbers are written without a decimal point.

        Raises:
            DataError: no such column, or something else in it.
        """
        name, value = self._cell(names)
        return self._as_text(name, value, "a text or number")

    def optional_scalar(self, *names: str) -> str | None:
        """Like `scalar`, but None where no such column holds anything.

        Raises:
            DataError: a list, an object, or a text that is not valid Unicode.
        """
        return self.scalar(*names) if self.has(*names) else None

    def texts(self, *names: str) -> list[str]:
        """A list of texts or numbers, as texts; at least one.

        Raises:
            DataError: no such column, or something else in it.
        """
        name, value = self._cell(names)
        items = self._items(name, value)
        if not items:
            raise self.unexpected(name, value, "a list that is not empty")
        return [self._as_text(f"{name}[{at}]", item, "a text or number") for at, item in enumerate(items)]

    def rows(self, *names: str) -> "list[DataRow]":
        """A list of objects, which may be empty.

        Raises:
            DataError: no such column, or something else in it.
        """
        name, value = self._cell(names)
        return [self._inside(f"{name}[{at}]", item) for at, item in enumerate(self._items(name, value))]

    def nested(self, *names: str) -> "DataRow":
        """An object.

        Raises:
            DataError: no such column, or something else in it.
        """
        name, value = self._cell(names)
        return self._inside(name, value)

    def files(self, *names: str) -> dict[str, str]:
        """An object of file names and contents. The names are relative and stay inside their folder.

        Raises:
            DataError: no such column, something else in it, or a name that leads elsewhere.
        """
        folder = self.nested(*names)
        held = [name for name, content in folder.values.items() if content is not None]  # parquet gives every row all names of a file
        for name in held:
            path = PurePosixPath(name)
            if not path.parts or path.is_absolute() or ".." in path.parts or not name.isprintable() or ":" in name:
                raise self.unexpected(names[0], name, "a relative file name without '..' and ':'")
            if not isinstance(folder.values[name], str):
                raise folder.unexpected(name, folder.values[name], "the content of the file as text")
        return {name: folder._valid(name, folder.values[name]) for name in held}

    def unexpected(self, column: str, value: Any, expected: str) -> DataError:
        """The error for a cell of the wrong type or content."""
        return self.problem(f"found {shown(value)}, expected {expected}", column)

    def problem(self, what: str, column: str = "") -> DataError:
        """The error for this row, or for one column of it."""
        place = f"{self.within}{column}".rstrip(".")
        where = f"{self.task}: row {self.number} of '{visible(self.source, limit=200)}'"
        return DataError(f"{where}{f', column {place!r}' if place else ''}: {what}. Correct or remove this row.")

    def _cell(self, names: tuple[str, ...]) -> tuple[str, Any]:
        """Name and value of the first column that holds something, else of the first that exists."""
        there = [name for name in names if name in self.values]
        if not there:
            columns = [visible(name, limit=30) for name in self.values]
            more = f" and {len(columns) - _MOST_COLUMNS} more" if len(columns) > _MOST_COLUMNS else ""
            listed = ", ".join(columns[:_MOST_COLUMNS]) or "none"
            raise self.problem(f"no column {' or '.join(map(repr, names))}; found: {listed}{more}")
        name = next((name for name in there if _holds_something(self.values[name])), there[0])
        return name, self.values[name]

    def _items(self, name: str, value: Any) -> list[Any]:
        items = _decoded(value)
        if not isinstance(items, list):
            raise self.unexpected(name, value, "a list (in CSV as JSON)")
        return items

    def _inside(self, name: str, value: Any) -> "DataRow":
        decoded = _decoded(value)
        if isinstance(decoded, list) and decoded and all(isinstance(pair, tuple) and len(pair) == 2 for pair in decoded):
            decoded = dict(decoded)  # a map of parquet
        if not isinstance(decoded, dict) or not all(isinstance(key, str) for key in decoded):
            raise self.unexpected(name, value, "an object with named fields (in CSV as JSON)")
        return replace(self, values=decoded, within=f"{self.within}{name}.")

    def _as_text(self, name: str, value: Any, expected: str) -> str:
        if isinstance(value, float) and math.isfinite(value):
            return str(int(value)) if value.is_integer() else str(value)
        if not isinstance(value, str | bool | int) or not str(value).strip():
            raise self.unexpected(name, value, expected)
        return self._valid(name, str(value))

    def _valid(self, name: str, text: str) -> str:
        try:
            text.encode()
        except UnicodeEncodeError as ex:
            raise self.unexpected(name, text[ex.start : ex.start + 1], "valid Unicode, without halves of surrogate pairs") from None
        return text


def shown(value: Any) -> str:
    """A cell's value as a message shows it: short, and without characters that act on a terminal."""
    if value is None:
        return "nothing"
    kinds: dict[type, str] = {str: "the text", list: "the list", dict: "the object"}
    kind = kinds.get(type(value), type(value).__name__)
    try:
        return f"{kind} {visible(repr(value) if isinstance(value, str) else value, limit=_LONGEST_CELL)}"
    except RecursionError:
        return f"{kind} of many levels"


def _holds_something(value: Any) -> bool:
    if isinstance(value, str):
        return bool(value.strip())
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def _decoded(value: Any) -> Any:
    """The list or object that a CSV cell writes as JSON; any other value as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
