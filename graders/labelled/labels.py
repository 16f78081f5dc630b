"""Files of labelled texts: the schema, its flat forms, and the one reader of both.

The schema (`graders/labelled/README.md`) has one JSON object per line, with a list of `labels`. A flat file (CSV or JSONL) has the
columns `id` and `text`, and either the columns `annotator` and `verdict` (one row per label) or one column per annotator (one row per
text). A file is untrusted: whatever it contains, it is either read or refused with the place of the mistake.
"""

import csv
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError

from graders.base import Verdict
from nla.support.display import visible
from nla.support.errors import DataError, first_line

Kind = Literal["person", "author", "model"]
KINDS: tuple[Kind, ...] = ("person", "author", "model")
"""Kinds of annotators, the most authoritative first: annotators of the first kind present in a file are the reference."""
ABOUT = ("blurb", "split", "style", "rule", "note")
"""Columns of a flat file that describe the text."""
LONG = ("annotator", "kind", "verdict", "format_only")
"""Columns of a flat file with one row per label that describe the label."""
_BOOLEANS: dict[Any, Any] = {"true": True, "false": False}
_SCHEMA = "schema: graders/labelled/README.md"
_SHOWN = 80
"""Characters of a wrong value that a message repeats."""


class Label(BaseModel):
    """The verdict of one annotator on a text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    annotator: str = Field(min_length=1)
    kind: Kind
    verdict: Verdict
    format_only: StrictBool = False
    rule: str = ""
    """The rule of the rubric that the annotator cites."""
    evidence: str = ""
    """The passage of the text that the annotator marked."""


class LabelledText(BaseModel):
    """A text with the verdicts of its annotators, as in the schema."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(min_length=1)
    text: str = Field(min_length=1)
    blurb: str = ""
    split: Literal["dev", "test"]
    style: str = ""
    rule: str = ""
    labels: tuple[Label, ...]
    note: str = ""
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Number of explanations that this text represents in a sample drawn with unequal probabilities (`audit label`)."""

    def verdict_of(self, annotator: str) -> Verdict | None:
        """Return the verdict of an annotator, or None where they did not label this text."""
        return next((label.verdict for label in self.labels if label.annotator == annotator), None)


@dataclass(frozen=True)
class LabelSet:
    """The labelled texts of one file, in file order."""

    path: Path
    items: tuple[LabelledText, ...]
    kinds: dict[str, Kind]
    """Annotator -> kind, in order of appearance."""
    assumed: tuple[str, ...]
    """Annotators whose kind a flat file does not state; they are treated as people."""
    n_unlabelled: int
    """Texts of a flat file that nobody has labelled; they are not in `items`."""

    @property
    def reference_kind(self) -> Kind:
        """The most authoritative kind of annotator in the file."""
        return next(kind for kind in KINDS if kind in self.kinds.values())

    def reference(self, item: LabelledText) -> Verdict | None:
        """Return the majority verdict of the annotators of the reference kind; None for a tie, or where none of them labelled the text."""
        votes = Counter(label.verdict for label in item.labels if label.kind == self.reference_kind).most_common(2)
        if not votes or (len(votes) == 2 and votes[0][1] == votes[1][1]):
            return None
        return votes[0][0]


def read_labels(path: Path) -> LabelSet:
    """Read a file of labels, in the schema or in a flat form.

    In a flat file the kind of an annotator is given in the column `kind` or before the annotator's name (`model:gpt`); by default it is
    `person`, and the split is `test`.

    Raises:
        DataError: the file cannot be read, is empty, or has a row that does not follow the schema; the message names file and row.
    """
    try:
        rows = list(_rows(path))
    except (OSError, UnicodeDecodeError, csv.Error) as ex:
        raise DataError(f"{path} cannot be read ({first_line(ex)}); expected a JSONL or CSV file of labels in UTF-8.") from None
    if not rows:
        raise DataError(f"{path} has no row; expected one labelled text per line ({_SCHEMA}).")
    is_flat = "labels" not in rows[0][1]
    merged: dict[str, LabelledText] = {}
    for where, row in rows:
        item = _validated(where, _unflattened(where, row) if is_flat else row)
        if not item.labels and not is_flat:
            raise DataError(f"{where}: the list of labels of text {_quoted(item.id)} is empty; expected at least one label.")
        merged[item.id] = _merged(where, merged[item.id], item) if item.id in merged else item
    items = tuple(item for item in merged.values() if item.labels)
    if not items:
        raise DataError(f"{path} has {len(merged)} texts and no label; expected YES, NO or UNCLEAR from at least one annotator.")
    kinds = _kinds(path, items)
    unstated = {name for _, row in rows if not row.get("kind") for name in (*row, row.get("annotator"))} if is_flat else set()
    return LabelSet(path, items, kinds, tuple(name for name in kinds if name in unstated), len(merged) - len(items))


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of a file, each with its place (`FILE, line N`)."""
    return _csv_rows(path) if path.suffix.lower() == ".csv" else _jsonl_rows(path)


def _csv_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        names = reader.fieldnames or []
        if repeated := [name for name, times in Counter(names).items() if times > 1]:
            raise DataError(f"{path} has two columns named {_quoted(repeated[0])}; rename one of them.")
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if None in row or None in row.values():
                raise DataError(
                    f"{where} does not have {len(names)} cells as the header does; quote cells that contain commas or line breaks."
                )
            yield where, {key: value.strip() for key, value in row.items()}


def _jsonl_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                row = json.loads(line, object_pairs_hook=_without_repeated_keys)
            except (ValueError, RecursionError) as ex:
                raise DataError(f"{where} is not valid JSON ({visible(first_line(ex))}); expected one object per line.") from None
            if "\\ud" in line.lower() and not _is_encodable(row):
                raise DataError(f"{where} has half of a surrogate pair (an escape from \\ud800 to \\udfff), which is not text; remove it.")
            if not isinstance(row, dict):
                raise DataError(f"{where} is JSON but not an object; expected keys and values ({_SCHEMA}).")
            yield where, row


def _is_encodable(row: object) -> bool:
    """Whether all strings of a JSON value can be written to a file in UTF-8."""
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _without_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build a JSON object; of two equal keys `json` would silently keep the last."""
    if repeated := [key for key, times in Counter(key for key, _ in pairs).items() if times > 1]:
        raise ValueError(f"the key {_quoted(repeated[0])} is repeated")
    return dict(pairs)


def _unflattened(where: str, row: dict[str, Any]) -> dict[str, Any]:
    """Convert a flat row to the schema; an annotator whose cell is empty or null gave no label."""
    about = {"split": "test"} | {key: row[key] for key in ("id", "text", *ABOUT) if row.get(key)}
    rest = {key: value for key, value in row.items() if key not in ("id", "text", *ABOUT)}
    if not rest:
        raise DataError(f"{where} has no annotator; add one column per annotator, or the columns annotator and verdict.")
    extra: dict[str, Any] = {}
    if rest.keys() & {"annotator", "verdict"}:
        if unknown := sorted(rest.keys() - set(LONG)):
            expected = ", ".join((*ABOUT, *LONG))
            raise DataError(f"{where} has the unknown key {_quoted(unknown[0])}; expected id, text and any of {expected}.")
        name = rest.get("annotator")
        if not name or not isinstance(name, str):
            raise DataError(f"{where} has a verdict but no annotator (found {_quoted(name)}); add the annotator's name.")
        extra = {key: _boolean(rest[key]) for key in ("kind", "format_only") if rest.get(key)}
        rest = {name: rest.get("verdict")}
    labels = [_kind_and_name(column) | {"verdict": verdict} | extra for column, verdict in rest.items() if verdict not in (None, "")]
    return about | {"labels": labels}


def _boolean(cell: Any) -> Any:
    """Return the boolean that a cell of text spells; anything else stays as it is, for the schema to judge."""
    return _BOOLEANS.get(cell, cell) if isinstance(cell, str) else cell


def _kind_and_name(column: str) -> dict[str, str]:
    """Split `kind:name` into the kind and name of an annotator; a name without a kind is a person's."""
    kind, _, name = column.partition(":")
    return {"kind": kind, "annotator": name} if kind in KINDS and name else {"kind": "person", "annotator": column}


def _validated(where: str, row: dict[str, Any]) -> LabelledText:
    """Return the row as a labelled text."""
    try:
        item = LabelledText.model_validate(row)
    except ValidationError as ex:
        first = ex.errors(include_url=False, include_context=False)[0]
        place = visible(".".join(str(part) for part in first["loc"]), limit=_SHOWN)
        value = "" if first["type"] in ("missing", "extra_forbidden") else f"; found {_quoted(first['input'])}"
        raise DataError(f"{where}: {place}: {first['msg']}{value} ({_SCHEMA}).") from None
    except (OverflowError, RecursionError) as ex:  # numbers beyond a float, and lists too deep to visit
        raise DataError(f"{where}: a value is too large ({first_line(ex)}); expected a labelled text ({_SCHEMA}).") from None
    if len({label.annotator for label in item.labels}) < len(item.labels):
        raise DataError(f"{where}: text {_quoted(item.id)} has two labels of one annotator; keep one.")
    return item


def _quoted(value: object) -> str:
    """Return a value for a message: short, and with control characters as escapes. Of lists and objects only the type is named."""
    if isinstance(value, str):
        return f"'{visible(value, limit=_SHOWN)}'"
    names: dict[type, str] = {list: "a list", tuple: "a list", dict: "an object", set: "a set"}
    return names.get(type(value)) or visible(repr(value), limit=_SHOWN)


def _merged(where: str, first: LabelledText, second: LabelledText) -> LabelledText:
    """Join two rows with the same id into one text; each annotator may give one label."""
    for key in ("text", "blurb", "split", "style", "rule", "weight"):
        if getattr(first, key) != getattr(second, key):
            raise DataError(
                f"{where} repeats the id {_quoted(first.id)} of an earlier row with another {key}; give different texts different ids."
            )
    known = {label.annotator: label for label in first.labels}
    for label in second.labels:
        if known.setdefault(label.annotator, label) != label:
            raise DataError(f"{where}: {_quoted(label.annotator)} has two different labels of text {_quoted(first.id)}; keep one of them.")
    return first.model_copy(update={"labels": tuple(known.values()), "note": first.note or second.note})


def _kinds(path: Path, items: tuple[LabelledText, ...]) -> dict[str, Kind]:
    kinds: dict[str, Kind] = {}
    for label in (label for item in items for label in item.labels):
        if kinds.setdefault(label.annotator, label.kind) != label.kind:
            both = f"{kinds[label.annotator]} in one label and {label.kind} in another"
            raise DataError(f"{path}: the kind of {_quoted(label.annotator)} is {both}; give each annotator one kind.")
    return kinds
