"""What every task shares: reading its data from the hub, a file or the bundled set, and attaching the awareness scorers."""

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inspect_ai.dataset import MemoryDataset, Sample

from nla.errors import ConfigError, DataError, FetchError
from nla.launch import user_path
from nla.sampling import seeded_generator

Row = dict[str, Any]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""Of the options of a multiple-choice item."""


@dataclass(frozen=True)
class Hub:
    """A data set on the Hugging Face hub at a pinned revision."""

    path: str
    revision: str
    split: str
    name: str | None = None


@dataclass(frozen=True)
class Source:
    """Where a task's items come from, by what the user gave as `-T source=…`."""

    hub: Hub | None
    """None where no revision is pinned: the user brings a file."""
    bundled: Path
    """JSON lines in `tasks/data`, written for this project."""

    def rows(self, source: str) -> list[Row]:
        """All rows of `hub`, `bundled`, or a parquet, CSV, JSON or JSONL file.

        Raises:
            FetchError: the hub is out of reach.
            DataError: no such file, unreadable, or empty.
        """
        rows = self._hub_rows() if source == "hub" else read_file(self.bundled if source == "bundled" else user_path(source))
        if not rows:
            raise DataError(f"source '{source}' has no rows.")
        return rows

    def _hub_rows(self) -> list[Row]:
        if self.hub is None:
            raise ConfigError("this task has no data set pinned on the hub; give a file (-T source=PATH) or take -T source=bundled.")
        from datasets import load_dataset

        try:
            data = load_dataset(self.hub.path, self.hub.name, split=self.hub.split, revision=self.hub.revision)
        except Exception as ex:  # the library raises a dozen kinds, from the network's to its own
            first = (str(ex).strip().splitlines() or [type(ex).__name__])[0]
            raise FetchError(
                f"{self.hub.path} could not be fetched from the hub: {first} "
                "Give a file of its rows (-T source=PATH.parquet), or take the project's own small set (-T source=bundled)."
            ) from ex
        return [dict(row) for row in data]


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


def field(row: Row, *names: str) -> Any:
    """The value under the first of several column names that the row has.

    Raises:
        DataError: it has none of them.
    """
    for name in names:
        if name in row:
            return row[name]
    raise DataError(f"a row has no column {' or '.join(repr(n) for n in names)}; found: {', '.join(map(str, row))}.")


def text_field(row: Row, *names: str) -> str:
    """Like `field`, for a text that must not be empty.

    Raises:
        DataError: no such column, or no text in it.
    """
    value = field(row, *names)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"a row has no text in column {' or '.join(repr(n) for n in names)}: {json.dumps(row, default=str)[:200]}")
    return value


def shuffled_choices(name: str, question: str, right: str, wrong: Sequence[str], **metadata: Any) -> Sample:
    """A multiple-choice item whose options stand in an order seeded by the item.

    Raises:
        DataError: fewer than 2 or more than 26 options, or two that are equal.
    """
    options = [right, *wrong]
    if not 2 <= len(options) <= len(LETTERS) or len(set(options)) < len(options):
        raise DataError(f"a {name} item needs 2 to 26 different options; found {len(set(options))} of {len(options)}: {question[:80]}")
    order = [int(i) for i in seeded_generator(name, question).permutation(len(options))]
    return Sample(
        id=content_id(question, sorted(options)),
        input=question,
        choices=[options[i] for i in order],
        target=LETTERS[order.index(0)],
        metadata={"id_from_content": True, **metadata},
    )


def check_sha256(path: Path, expected: str, what: str) -> None:
    """Refuse a file that is not the one a benchmark was published as.

    Raises:
        DataError: its hash differs.
    """
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected:
        raise DataError(f"{path} has sha256 {found}, expected {expected}: it is not {what}. Give -T sha256=any to take it all the same.")


def content_id(*parts: Any) -> str:
    """A stable id for an item of a data set without ids: 12 hex digits of the sha256 of its content."""
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False, default=str).encode()).hexdigest()[:12]


def dataset(samples: Sequence[Sample], name: str, source: str) -> MemoryDataset:
    """Samples in an order that depends on their ids alone, so that `--limit` takes the same mixed subset everywhere.

    Ids made from content get a counter where a data set repeats an item.

    Raises:
        DataError: an id of the data set's own stands twice.
    """
    seen: Counter[str] = Counter()
    for sample in samples:
        seen[str(sample.id)] += 1
        if seen[str(sample.id)] > 1:
            if not (sample.metadata or {}).get("id_from_content"):
                raise DataError(f"id '{sample.id}' stands {seen[str(sample.id)]} times or more in source '{source}'; ids must be unique.")
            sample.id = f"{sample.id}-{seen[str(sample.id)]}"
    ordered = sorted(samples, key=lambda sample: hashlib.sha256(str(sample.id).encode()).digest())
    return MemoryDataset(ordered, name=name, location=source)
