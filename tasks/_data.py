"""Where a task's items come from: the hub at a pinned revision, a file, or the small set written for this project.

Nothing is chosen silently. `-T source` has a default only where it is unambiguous: `hub` where the data set is pinned there, and
`bundled` where the project's own scenarios are the data set. Every other task asks for a source.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from inspect_ai.dataset import MemoryDataset, Sample

from nla.support.display import visible
from nla.support.errors import ConfigError, DataError, FetchError, first_line
from nla.support.paths import user_path
from nla.support.rows import Row, read_file
from tasks._fields import DataRow

HUB, BUNDLED = "hub", "bundled"
"""Values of `-T source` beside paths."""


class Origin(StrEnum):
    """Where a task's data set is published, which decides what `-T source` is by default."""

    HUB = "hub"
    """On the Hugging Face hub, at a revision that is pinned here."""
    OWN = "own"
    """In this repository: scenarios written for this project are the data set."""
    FILE = "file"
    """Elsewhere: users give a file. The bundled items have the same columns, but are not the data set."""


@dataclass(frozen=True)
class Hub:
    """A data set on the Hugging Face hub.

    Args:
        path: its id, `owner/name`.
        revision: commit, 40 hex digits.
        split: as `datasets` names it; a part of a split may be given, e.g. `train[:20000]`.
        name: configuration of the data set, where it has several.
    """

    path: str
    revision: str
    split: str
    name: str | None = None


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """What a user can give as `-T source=...`, and where the rows are then read from.

    Args:
        bundled: JSON lines in the folder `data` beside the task, named after it.
        columns: the columns that a user's file needs, in words.
        hub: the data set on the hub; None where no revision is pinned.
        own: whether the bundled items are the data set itself.
        subsets: parameter that selects one of the hub's configurations, where the hub holds no set of all items.
    """

    bundled: Path
    columns: str
    hub: Hub | None = None
    own: bool = False
    subsets: str | None = None

    @property
    def name(self) -> str:
        """Name of the task."""
        return self.bundled.stem

    @property
    def origin(self) -> Origin:
        """Where the data set is published."""
        if self.hub is not None:
            return Origin.HUB
        return Origin.OWN if self.own else Origin.FILE

    @property
    def default(self) -> str | None:
        """Value of `-T source` where a user gives none; None where a user must give one."""
        return {Origin.HUB: HUB, Origin.OWN: BUNDLED, Origin.FILE: None}[self.origin]

    def subset(self, name: str | None, split: str | None = None) -> "DataSource":
        """The same source with another configuration (and split) of the data set on the hub."""
        return self if self.hub is None else replace(self, hub=replace(self.hub, name=name, split=split or self.hub.split))

    def rows(self, source: str | None) -> list[DataRow]:
        """All rows of `hub`, `bundled`, or a parquet, CSV, JSON or JSONL file.

        Raises:
            ConfigError: no source is given, or the hub where the data set is not pinned there.
            FetchError: the hub cannot be reached, or refuses.
            DataError: the file does not exist, cannot be read or has no rows.
        """
        if source is None:
            raise ConfigError(f"{self.name} has no default source, because its data set is not pinned on the hub; {self._choices()}")
        rows = self._hub_rows() if source == HUB else read_file(self.bundled if source == BUNDLED else user_path(source))
        if not rows:
            raise DataError(f"source '{visible(source)}' has no rows; expected items of {self.name} with columns {self.columns}.")
        return [DataRow(row, self.name, source, number) for number, row in enumerate(rows, start=1)]

    def _choices(self) -> str:
        bundled = "the scenarios of this project" if self.own else "the small set written for this project"
        return f"give a file with columns {self.columns} (-T source=PATH), or take {bundled} (-T source=bundled)."

    def _hub_rows(self) -> list[Row]:
        if self.hub is None:
            raise ConfigError(f"{self.name} has no data set that is pinned on the hub; {self._choices()}")
        from datasets import load_dataset

        try:
            data = load_dataset(self.hub.path, self.hub.name, split=self.hub.split, revision=self.hub.revision)
            return [dict(row) for row in data]
        except Exception as ex:  # the library raises a dozen classes, from the network's to its own
            raise FetchError(
                f"{self.hub.path} could not be fetched from the hub: {visible(first_line(ex))} To go on, {self._choices()}"
            ) from ex


def dataset(samples: Sequence[Sample], name: str, source: str | None) -> MemoryDataset:
    """Samples in an order that depends on their ids alone, so that `--limit` takes the same mixed subset everywhere.

    Ids made from content get a counter where a data set repeats an item.

    Raises:
        DataError: there are no samples, or an id that the data set gives occurs twice.
    """
    if not samples:
        raise DataError(f"{name}: no item of source '{visible(source)}' is left; check the source and the parameters that select items.")
    seen: Counter[str] = Counter()
    for sample in samples:
        seen[str(sample.id)] += 1
        if seen[str(sample.id)] > 1:
            if not (sample.metadata or {}).get("id_from_content"):
                raise DataError(
                    f"{name}: id '{visible(sample.id, limit=60)}' occurs more than once in source '{visible(source)}'; make ids unique."
                )
            sample.id = f"{sample.id}-{seen[str(sample.id)]}"
    ordered = sorted(samples, key=lambda sample: hashlib.sha256(str(sample.id).encode()).digest())
    return MemoryDataset(ordered, name=name, location=source)


def check_sha256(path: Path, expected: str, what: str) -> None:
    """Refuse a file that differs from the published one.

    Raises:
        DataError: the hash differs, or the file cannot be read.
    """
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as ex:
        raise DataError(f"{visible(path)} cannot be read: {first_line(ex)}; give a file that you may read.") from None
    if digest != expected:
        raise DataError(
            f"{visible(path)} has sha256 {digest}, expected {visible(expected, limit=64)}: it is not {what}. "
            "Give -T sha256=any to use it anyway."
        )
