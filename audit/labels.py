"""Texts with known verdicts (files of labels, deployment transcripts in logs, earlier records), and what a grader says of them.

The schema (`graders/labels/README.md`) is one JSON object a line with a list of `labels`. A flat file, CSV or JSONL, has the
columns id and text, and either annotator and verdict (one row a label) or one column an annotator (one row a text).
"""

import csv
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import anyio
from inspect_ai.log import EvalLog, list_eval_logs, read_eval_log
from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError

from audit.tables import CONTROL_ROLE
from graders import build_grader
from graders.base import Grade, Verdict
from nla.errors import ConfigError, DataError

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
        raise DataError(f"{path} has no row; expected one labelled text a line (schema: graders/labels/README.md).")
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
                    raise DataError(f"{where} is JSON, but no object; expected keys and values (schema: graders/labels/README.md).")
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
        raise DataError(f"{where}: {place}: {first['msg']}{found} (schema: graders/labels/README.md).") from None
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


@dataclass(frozen=True)
class ControlText:
    """An explanation of a deployment transcript: no text of evaluation awareness, whatever a grader says."""

    log: str
    sample: str
    text: str
    blurb: str
    unscored: str
    """Why the log has no verdict on it (it stays unscored, as the explanation itself may be the failure); empty for a scored one."""


def read_controls(paths: tuple[Path, ...]) -> list[ControlText]:
    """Explanations of the deployment transcripts in Inspect logs, from the `nla_awareness` score of each sample.

    Args:
        paths: logs, or folders of logs.

    Raises:
        DataError: something is no log, has no awareness scores, or says of itself that it is another condition.
    """
    texts = [text for path in paths for log in read_logs(path) for text in _control_texts(log)]
    if not texts:
        raise DataError(f"{', '.join(map(str, paths))} has no explanation; expected logs of a deployment control that was scored.")
    return texts


def read_logs(path: Path) -> Iterator[EvalLog]:
    """The Inspect logs of a file or folder, the oldest first.

    Raises:
        DataError: it is no log.
    """
    try:
        if not path.is_dir():
            yield read_eval_log(str(path))
            return
        for info in list_eval_logs(str(path), descending=False):
            yield read_eval_log(info)
    except (OSError, ValueError) as ex:  # pydantic's errors are ValueErrors
        first = str(ex).split("\n", maxsplit=1)[0]
        raise DataError(f"{path} cannot be read as an Inspect log ({first}); give a .eval or .json log, or a folder of them.") from None


def _control_texts(log: EvalLog) -> Iterator[ControlText]:
    about = log.eval.metadata or {}
    role = about.get("role", CONTROL_ROLE)
    if log.eval.task_args.get("system") == "evaluation":
        role = "positive control"
    if role != CONTROL_ROLE:
        raise DataError(f"{log.location} is task {log.eval.task}, a {role}; --controls takes deployment traffic (tasks/wildchat.py).")
    for sample in log.samples or []:
        score = (sample.scores or {}).get("nla_awareness")
        if score is None:
            raise DataError(
                f"{log.location}, sample {sample.id}, has no nla_awareness score; add it with: "
                f"inspect score {log.location} --scorer graders/nla_awareness --action append"
            )
        for row in (score.metadata or {}).get("tokens", []):
            unscored = "" if row["verdict"] else row["reason"] or "no reason given"
            yield ControlText(log.location, f"{sample.id}, epoch {sample.epoch}", row["explanation"], about.get("blurb", ""), unscored)


@dataclass(frozen=True)
class Judged:
    """A labelled text beside a grader's verdict on it."""

    id: str
    text: str
    rule: str
    style: str
    labels: dict[str, Verdict]
    """Annotator to verdict."""
    reference: Verdict | None
    verdict: Verdict | None
    """What the grader said; None, with a reason, where it could not."""
    grader_rule: str
    reason: str


def judge(labels: LabelSet, split: str, grader: str) -> list[Judged]:
    """Grade the texts of a split (`dev`, `test` or `all`).

    Raises:
        ConfigError: the split has no text, or there is no such grader.
    """
    items = [item for item in labels.items if split in ("all", item.split)]
    if not items:
        raise ConfigError(f"no text of {labels.path} is in split {split}; use --split all.")
    grades = grade_texts(grader, [(item.text, item.blurb) for item in items])
    return [
        Judged(
            id=item.id,
            text=item.text,
            rule=item.rule,
            style=item.style,
            labels={label.annotator: label.verdict for label in item.labels},
            reference=labels.reference(item),
            verdict=grade.verdict,
            grader_rule=grade.rule,
            reason=grade.reason,
        )
        for item, grade in zip(items, grades, strict=True)
    ]


def grade_texts(grader: str, texts: Sequence[tuple[str, str]]) -> list[Grade]:
    """Grades of (explanation, blurb) pairs, in order; a verdict whose evidence is not in the text is none."""
    judge = build_grader(grader)

    async def grade(chosen: list[str], blurb: str) -> list[Grade]:
        return await judge.grade(chosen, kind="explanation", blurb=blurb)

    grades: dict[tuple[str, str], Grade] = {}
    for blurb in dict.fromkeys(blurb for _, blurb in texts):
        chosen = list(dict.fromkeys(text for text, own in texts if own == blurb))
        for text, found in zip(chosen, anyio.run(grade, chosen, blurb), strict=True):
            quoted = found.evidence in text
            grades[text, blurb] = found if quoted else replace(found, verdict=None, reason="evidence is not in the text")
    return [grades[key] for key in texts]


class EarlierItem(BaseModel):
    """A grader's verdict on a text, as an earlier record has it."""

    id: str
    text: str
    verdict: Verdict | None


class _EarlierConfig(BaseModel):
    grader: str


class Earlier(BaseModel):
    """What is read of the record of an earlier `audit agreement --json`."""

    config: _EarlierConfig
    items: list[EarlierItem] = Field(min_length=1)


def read_earlier(path: Path) -> Earlier:
    """Read an earlier record.

    Raises:
        DataError: the file is missing or is no such record.
    """
    try:
        return Earlier.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as ex:
        first = "; ".join(str(ex).splitlines()[:3])
        raise DataError(f"{path} is no record to compare with ({first}); write one with: audit agreement LABELS --json {path}") from None
