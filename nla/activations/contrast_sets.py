"""Contrast sets: pairs of texts that differ in one thing, read from files. This module imports no torch, so names are checked early.

A set is a JSONL file: a header line (`name`, `about`, `vector`, `source`), then lines with `positive` and `negative`. A user's own file
works like the project's sets. A set whose name starts with `unrelated-` is a control: its pairs have nothing to do with evaluation.
Probes (`nla/probes`) and steering (`nla.activations.directions`) make directions of the sets.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nla.support.display import visible
from nla.support.errors import ConfigError, DataError, near_name
from nla.support.paths import user_path
from nla.support.rows import content_id, read_file

CONTRASTS = Path(__file__).parents[1] / "probes" / "contrasts"
"""The project's own sets, by file name."""
TESTING = "testing"
"""The NLA paper's one pair, read at the last token."""
UNRELATED = "unrelated-"
"""Names of the sets that are controls start with this."""


@dataclass(frozen=True)
class ContrastSet:
    """Pairs of texts that differ in one thing."""

    name: str
    pairs: tuple[tuple[str, str], ...]
    """Positive and negative text of each pair."""
    vector: Literal["last", "mean"]
    """Which activation stands for a text: that of its last token, or the mean over its tokens."""

    @property
    def is_control(self) -> bool:
        """Whether the pairs have nothing to do with evaluation, as the set's name says."""
        return is_control_name(self.name)

    @property
    def digest(self) -> str:
        """Identifier of what the direction is made from: the first 12 hex digits of the sha256 of the pairs and of `vector`."""
        return content_id(self.vector, self.pairs)


def is_control_name(name: str) -> bool:
    """Whether a set of this name is a control, whose pairs have nothing to do with evaluation."""
    return name.startswith(UNRELATED)


def contrast_names() -> list[str]:
    """Return the names of the project's own sets."""
    return sorted(path.stem for path in CONTRASTS.glob("*.jsonl"))


def read_probes(names: Sequence[str]) -> tuple[ContrastSet, ...]:
    """Read the contrast sets of a measurement.

    Args:
        names: names of `contrast_names` and paths of JSONL files; none of them means all of the project's own sets.

    Raises:
        ConfigError: a set is unknown, two sets have the same name, or all of them are controls.
        DataError: see `read_contrast`.
    """
    given = list(names) or contrast_names()
    sets = tuple(read_contrast(name) for name in given)
    counted = Counter(contrast.name for contrast in sets)
    for repeated in (name for name, count in counted.items() if count > 1):
        alike = ", ".join(visible(name, limit=100) for name, contrast in zip(given, sets, strict=True) if contrast.name == repeated)
        raise ConfigError(
            f"Several probes are named '{visible(repeated, limit=80)}' ({alike}), so their numbers could not be told apart; "
            "give each set once, and rename files."
        )
    if all(contrast.is_control for contrast in sets):
        raise ConfigError(
            f"The probes {', '.join(visible(name, limit=100) for name in given)} are all controls; give at least one set whose name "
            f"does not start with '{UNRELATED}', e.g. {TESTING}."
        )
    return sets


def read_contrast(name: str) -> ContrastSet:
    """Read a contrast set.

    Args:
        name: a name of `contrast_names`, or the path of a JSONL file.

    Raises:
        ConfigError: there is no such set or file.
        DataError: the file has no pairs, or a pair has an empty side or the same text on both sides.
    """
    path = CONTRASTS / f"{name}.jsonl" if name in contrast_names() else user_path(name)
    if not path.is_file():
        raise ConfigError(
            f"There is no contrast set '{visible(name, limit=100)}'; expected one of {', '.join(contrast_names())}, or a JSONL file."
            f"{near_name(name, contrast_names())}"
        )
    rows = read_file(path)
    header = rows[0] if rows and "positive" not in rows[0] and "negative" not in rows[0] else {}
    vector = header.get("vector", "mean")
    if vector not in ("last", "mean"):
        raise DataError(f"{visible(path)} has vector {visible(repr(vector), limit=60)}; expected last or mean.")
    pairs = tuple(_pair(row, path, number) for number, row in enumerate(rows, start=1) if row is not header)
    if not pairs:
        raise DataError(f"{visible(path)} holds no pair; expected lines with the texts positive and negative.")
    return ContrastSet(path.stem, pairs, vector)


def _pair(row: dict[str, Any], path: Path, number: int) -> tuple[str, str]:
    texts = [row.get(side) for side in ("positive", "negative")]
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise DataError(f"{visible(path)}, row {number} lacks a side; expected the texts positive and negative.")
    if texts[0] == texts[1]:
        raise DataError(f"{visible(path)}, row {number} has the same text on both sides, which gives no direction.")
    return str(texts[0]), str(texts[1])
