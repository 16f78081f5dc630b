"""Concept sets: passages with a label each (an emotion, a kind of situation), read from files. This module imports no torch.

A set is a JSONL file with `label` and `text`, and where there are any a `topic` (passages of one topic are held out together) and an
`arm` (`named`: the label's word occurs in the passage; `banned`: neither it nor its like does). Beside it may lie a TOML file of the same
name with a table per label: `valence` and `arousal` (-1 to 1) and `words`, which the banned arm must not hold.
"""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nla.support.display import visible
from nla.support.errors import ConfigError, DataError, near_name
from nla.support.paths import user_path
from nla.support.rows import content_id, read_file
from nla.support.toml_files import problems_of, read_toml

SHIPPED = Path(__file__).parent / "concept_sets"
"""The project's own sets, by file name, all of them written for this project."""
NEUTRAL = SHIPPED / "neutral.jsonl"
"""Passages without any emotion, whose main components are removed from concept vectors."""
EMOTIONS, AWARENESS = "emotions", "awareness"
NAMED = "named"
"""The arm that is taken where a set has several and none is asked for."""
_FEWEST = 2
"""Passages per label: of a single one, label and passage cannot be told apart."""


class LabelFacts(BaseModel):
    """What is known of a label besides its passages."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    valence: float | None = Field(default=None, ge=-1, le=1)
    arousal: float | None = Field(default=None, ge=-1, le=1)
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class LabelledPassage:
    """A text that shows what its label says."""

    label: str
    topic: str
    arm: str
    text: str


@dataclass(frozen=True)
class ConceptSet:
    """Labelled passages."""

    name: str
    passages: tuple[LabelledPassage, ...]
    facts: dict[str, LabelFacts]

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the order in which they first occur."""
        return tuple(dict.fromkeys(passage.label for passage in self.passages))

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms, in the order in which they first occur."""
        return tuple(dict.fromkeys(passage.arm for passage in self.passages))

    @property
    def digest(self) -> str:
        """Identifier of the passages: the first 12 hex digits of their sha256."""
        return content_id([vars(passage) for passage in self.passages])

    def of_arm(self, arm: str | None) -> "ConceptSet":
        """Return the passages of one arm; None takes `named` where there is such an arm, else the only one.

        Raises:
            ConfigError: there is no such arm, or there are several and none was named.
            DataError: a label has fewer than two passages in it.
        """
        chosen = arm or (NAMED if NAMED in self.arms else self.arms[0] if len(self.arms) == 1 else "")
        if chosen not in self.arms:
            asked = f"no arm '{visible(chosen)}'" if chosen else "several arms"
            raise ConfigError(f"The concept set {visible(self.name)} has {asked}; give --arm with one of {', '.join(self.arms)}.")
        part = replace(self, passages=tuple(passage for passage in self.passages if passage.arm == chosen))
        counts = Counter(passage.label for passage in part.passages)
        few = [label for label in self.labels if counts[label] < _FEWEST]
        if few or len(counts) < _FEWEST:
            found = f"label '{visible(few[0])}' has {counts[few[0]]} passages" if few else f"there is {len(counts)} label"
            raise DataError(
                f"The concept set {visible(self.name)}, arm {visible(chosen)}: {found}; expected at least {_FEWEST} labels with at "
                f"least {_FEWEST} passages each."
            )
        return part


def concept_set_names() -> list[str]:
    """Return the names of the project's own sets."""
    return sorted(path.stem for path in SHIPPED.glob("*.jsonl") if path != NEUTRAL)


def read_concepts(name: str) -> ConceptSet:
    """Read a concept set: one of the project's own by name, or a file.

    Raises:
        ConfigError: there is no such set, or its table of labels cannot be read.
        DataError: the file cannot be read, or a row lacks a label or a text.
    """
    path = SHIPPED / f"{name}.jsonl" if name in concept_set_names() else user_path(name)
    if not path.is_file():
        raise ConfigError(
            f"There is no concept set '{visible(name, limit=200)}'; expected {', '.join(concept_set_names())}, or a file of rows with "
            f"label and text.{near_name(name, concept_set_names())}"
        )
    passages = tuple(_passage(row, path, number) for number, row in enumerate(read_file(path), start=1))
    if not passages:
        raise DataError(f"{visible(path)} holds no passage; expected rows with the texts label and text.")
    return ConceptSet(path.stem, passages, _facts(path.with_suffix(".toml")))


def read_neutral(path: Path | None = None) -> tuple[str, ...]:
    """Return neutral passages: the project's own, or those of a user's file of rows with `text`.

    Raises:
        DataError: the file cannot be read, a row has no text, or there are fewer than two.
    """
    where = path or NEUTRAL
    texts = [row.get("text") for row in read_file(where)]
    usable = tuple(text for text in texts if isinstance(text, str) and text.strip())
    if len(usable) < len(texts) or len(usable) < _FEWEST:
        raise DataError(f"{visible(where)}: {len(usable)} of {len(texts)} rows have a text; expected one per row, and at least {_FEWEST}.")
    return usable


def _passage(row: dict[str, Any], path: Path, number: int) -> LabelledPassage:
    for name in ("label", "text"):
        if not isinstance(row.get(name), str) or not row[name].strip():
            raise DataError(f"{visible(path)}, row {number} has no text `{name}`; expected `label` and `text`.")
    topic, arm = (str(row.get(name) or "any") for name in ("topic", "arm"))
    return LabelledPassage(row["label"].strip(), topic, arm, row["text"].strip())


def _facts(path: Path) -> dict[str, LabelFacts]:
    if not path.is_file():
        return {}
    try:
        return {label: LabelFacts.model_validate(fields) for label, fields in read_toml(path).items()}
    except ValidationError as ex:
        raise ConfigError(f"{visible(path)} does not describe labels: {problems_of(ex)}") from ex
