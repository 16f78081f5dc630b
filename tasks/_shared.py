"""What every task shares: reading its data from the hub, a file or the bundled set, and attaching the awareness scorers."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inspect_ai.dataset import MemoryDataset, Sample

from nla.support.errors import ConfigError, DataError, FetchError
from nla.support.paths import user_path
from nla.support.rows import Row, content_id, read_file
from nla.support.seeds import seeded_generator

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
class DataSource:
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
