"""Texts with known verdicts (files of labels, deployment transcripts in logs, earlier records), and what a grader says of them.

The schema (`graders/labelled/README.md`) is one JSON object a line with a list of `labels`. A flat file, CSV or JSONL, has the
columns id and text, and either annotator and verdict (one row a label) or one column an annotator (one row a text).
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
from nla.support.errors import DataError

Kind = Literal["person", "author", "model"]
KINDS: tuple[Kind, ...] = ("person", "author", "model")
"""Annotator kinds, the most telling first: the first one present in a file is the reference."""
ABOUT = ("blurb", "split", "style", "rule", "note")
LONG = ("annotator", "kind", "verdict", "format_only")
"""Columns of a flat file: about the text, and (where a row is a label) about the label."""
_TRUTH: dict[Any, Any] = {"true": True, "false": False}


class Label(BaseModel):
    """One annotator's verdict on a text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    annotator: str = Field(min_length=1)
    kind: Kind
    verdict: Verdict
    format_only: StrictBool = False
    rule: str = ""
    """The rubric's rule that the annotator cites."""
    evidence: str = ""
    """What the annotator marked in the text."""


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
    weight: float = Field(default=1.0, gt=0)
    """How many explanations it stands for where a sample was drawn with unequal chances (`audit label`)."""

    def verdict_of(self, annotator: str) -> Verdict | None:
        """What an annotator said, or None where they did not label this text."""
        return next((label.verdict for label in self.labels if label.annotator == annotator), None)


@dataclass(frozen=True)
class LabelSet:
    """Labelled texts of one file, in file order."""

    path: Path
    items: tuple[LabelledText, ...]
    kinds: dict[str, Kind]
    """Annotator to kind, in order of appearance."""
    assumed: tuple[str, ...]
    """Annotators of a flat file that does not say what kind they are; they are taken for people."""
    n_unlabelled: int
    """Texts of a flat file that nobody has labelled; they are not among `items`."""

    @property
    def reference_kind(self) -> Kind:
        """The most telling kind of annotator in the file."""
        return next(kind for kind in KINDS if kind in self.kinds.values())

    def reference(self, item: LabelledText) -> Verdict | None:
        """Majority of the annotators of the reference kind; None where they are tied or none of them labelled the text."""
        votes = Counter(label.verdict for label in item.labels if label.kind == self.reference_kind).most_common(2)
        if not votes or (len(votes) == 2 and votes[0][1] == votes[1][1]):
            return None
        return votes[0][0]


def read_labels(path: Path) -> LabelSet:
    """Read a file of labels in the schema or in a flat form.

    In a flat file `kind` may stand in a column of its own or before the annotator's name (`model:gpt`); it is `person` where it
    does not, and `split` is `test`.

    Raises:
        DataError: the file cannot be read, is empty, or a row is not what the schema says; the message names file and row.
    """
    try:
        rows = list(_rows(path))
    except (OSError, UnicodeDecodeError, csv.Error) as ex:
        raise DataError(f"{path} cannot be read ({ex}); give a JSONL or CSV file of labels in UTF-8.") from None
    if not rows:
        raise DataError(f"{path} has no row; expected one labelled text a line (schema: graders/labelled/README.md).")
    flat = "labels" not in rows[0][1]
    merged: dict[str, LabelledText] = {}
    unlabelled: set[str] = set()
    for where, row in rows:
        item = _item(where, _unflattened(where, row) if flat else row)
        if not item.labels:
            if not flat:
                raise DataError(f"{where}: text {item.id} has no annotator; give labels at least one entry.")
            unlabelled.add(item.id)
        merged[item.id] = _merged(where, merged[item.id], item) if item.id in merged else item
    items = tuple(item for item in merged.values() if item.labels)
    if not items:
        raise DataError(f"{path} has {len(merged)} texts and no label; expected YES, NO or UNCLEAR of at least one annotator.")
    kinds = _kinds(path, items)
    bare = {name for _, row in rows if not row.get("kind") for name in (*row, row.get("annotator"))} if flat else set()
    return LabelSet(path, items, kinds, tuple(name for name in kinds if name in bare), len(merged) - len(items))


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of a file, each with where it stands."""
    if path.suffix.lower() == ".csv":
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            names = reader.fieldnames or []
            if len(set(names)) < len(names):
                raise DataError(f"{path} has two columns of one name; found {', '.join(names)}. Rename one.")
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                if None in row or None in row.values():
                    raise DataError(f"{where} does not have the header's {len(names)} cells; quote cells that hold commas or line breaks.")
                yield where, {key: value.strip() for key, value in row.items()}
        return
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                where = f"{path}, line {number}"
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as ex:
                    raise DataError(f"{where} is not JSON ({ex}); expected one object a line.") from None
                if not isinstance(row, dict):
                    raise DataError(f"{where} is JSON, but no object; expected keys and values (schema: graders/labelled/README.md).")
                yield where, row


def _unflattened(where: str, row: dict[str, Any]) -> dict[str, Any]:
    """A flat row in the form of the schema; an annotator whose cell is empty or null gave no label."""
    about = {"split": "test"} | {key: row[key] for key in ("id", "text", *ABOUT) if row.get(key)}
    rest = {key: value for key, value in row.items() if key not in ("id", "text", *ABOUT)}
    if not rest:
        raise DataError(f"{where} has no annotator; add one column an annotator, or the columns annotator and verdict.")
    extra: dict[str, Any] = {}
    if rest.keys() & {"annotator", "verdict"}:
        if unknown := sorted(rest.keys() - set(LONG)):
            allowed = ", ".join((*ABOUT, *LONG))
            raise DataError(f"{where} has the unknown keys {', '.join(unknown)}; beside id and text there are {allowed}.")
        name = rest.get("annotator")
        if not name or not isinstance(name, str):
            raise DataError(f"{where} has a verdict and no annotator (found {name!r}); name who gave it.")
        extra = {key: _TRUTH.get(rest[key], rest[key]) for key in ("kind", "format_only") if rest.get(key)}
        rest = {name: rest.get("verdict")}
    labels = [_kind_and_name(column) | {"verdict": verdict} | extra for column, verdict in rest.items() if verdict not in (None, "")]
    return about | {"labels": labels}


def _kind_and_name(column: str) -> dict[str, str]:
    """Kind and name of an annotator from `kind:name`; a bare name is a person's."""
    kind, _, name = column.partition(":")
    return {"kind": kind, "annotator": name} if kind in KINDS and name else {"kind": "person", "annotator": column}


def _item(where: str, row: dict[str, Any]) -> LabelledText:
    """The row as a labelled text."""
    try:
        item = LabelledText.model_validate(row)
    except ValidationError as ex:
        first = ex.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        found = "" if first["type"] in ("missing", "extra_forbidden") else f"; found {str(first['input'])[:80]!r}"
        raise DataError(f"{where}: {place}: {first['msg']}{found} (schema: graders/labelled/README.md).") from None
    if len({label.annotator for label in item.labels}) < len(item.labels):
        raise DataError(f"{where}: text {item.id} has two labels of one annotator; keep one.")
    return item


def _merged(where: str, first: LabelledText, second: LabelledText) -> LabelledText:
    """Two rows of one id as one text; each annotator may say one thing."""
    for key in ("text", "blurb", "split", "style", "rule"):
        if getattr(first, key) != getattr(second, key):
            raise DataError(f"{where} has the id {first.id} of an earlier row, but another {key}; give different texts different ids.")
    known = {label.annotator: label for label in first.labels}
    for label in second.labels:
        if known.setdefault(label.annotator, label) != label:
            raise DataError(f"{where}: {label.annotator} labelled {first.id} twice, and differently; keep one of the labels.")
    return first.model_copy(update={"labels": tuple(known.values()), "note": first.note or second.note})


def _kinds(path: Path, items: tuple[LabelledText, ...]) -> dict[str, Kind]:
    kinds: dict[str, Kind] = {}
    for label in (label for item in items for label in item.labels):
        if kinds.setdefault(label.annotator, label.kind) != label.kind:
            both = f"{kinds[label.annotator]} in one label and {label.kind} in another"
            raise DataError(f"{path}: {label.annotator} is of kind {both}; give each annotator one kind.")
    return kinds
