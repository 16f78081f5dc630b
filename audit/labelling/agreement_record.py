"""What `audit agreement` is asked for and what it measures, as a JSON record with which a later run is compared.

The field names of these classes are the keys of the record.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import BaseModel, Field

from audit.stats.agreement import Agreement, Change, Pair, Quality
from audit.stats.paired import McNemar
from audit.stats.rates import Estimate
from graders.base import Verdict
from graders.labelled.grading import GradedText
from graders.labelled.labels import Kind
from nla.support.display import visible
from nla.support.errors import ConfigError, DataError, first_line
from nla.support.files import replacing


@dataclass(frozen=True)
class AgreementConfig:
    """The arguments of `audit agreement`; a bound that is None is not checked.

    Raises:
        ConfigError: an argument is outside its range, or `json` would overwrite `against`.
    """

    labels: Path
    grader: str = "rules"
    split: str = "test"
    against: Path | None = None
    json: Path | None = None
    min_kappa: float | None = None
    min_sensitivity: float | None = None
    min_specificity: float | None = None
    max_drop: float = 0.02
    prevalence: float = 0.05
    controls: tuple[Path, ...] = ()
    """Logs, or folders of logs, with reference texts."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("min_kappa", "min_sensitivity", "min_specificity", "max_drop"):
            bound = getattr(self, name)
            if bound is not None and not 0 <= bound <= 1:
                raise ConfigError(f"Invalid --{name.replace('_', '-')} {bound}: expected a number from 0 to 1.")
        if not 0 < self.prevalence < 1:
            raise ConfigError(f"Invalid --prevalence {self.prevalence}: expected a number between 0 and 1.")
        if self.seed < 0:
            raise ConfigError(f"Invalid --seed {self.seed}: expected an integer of at least 0.")
        if self.split not in ("dev", "test", "all"):
            raise ConfigError(f"Invalid --split {self.split}: expected dev, test or all.")
        if self.json and self.json.is_dir():
            raise ConfigError(f"--json {self.json} is a folder; give the path of a file.")
        if self.json and self.against and self.json.resolve() == self.against.resolve():
            raise ConfigError(f"--json and --against are both {self.json}; name another file, or the earlier record would be lost.")


@dataclass(frozen=True)
class ReferenceTextRates:
    """YES on explanations of deployment transcripts, and transcripts with at least one; each YES is listed."""

    logs: list[str]
    explanations: Estimate
    transcripts: Estimate
    yes: list[dict[str, str]]


@dataclass(frozen=True)
class GraderChange:
    """The grader compared with an earlier one on the texts of both; the test is on YES or not YES where both scored the text."""

    earlier: str
    n: int
    n_left_out: int
    figures: list[Change]
    test: McNemar
    changed: list[dict[str, str | None]]


@dataclass(frozen=True)
class AgreementReport:
    """Everything that `audit agreement` measures."""

    config: AgreementConfig
    version: str
    labels_sha256: str
    kinds: dict[str, Kind]
    assumed: tuple[str, ...]
    reference: str
    """What the reference is, in words."""
    n_unlabelled: int
    main: Pair
    """The reference and the grader."""
    pairs: list[Pair]
    """Each pair of the annotators and the grader; with one annotator this is `main` again."""
    pooled: Agreement | None
    """All annotators, without the grader, if there are three or more."""
    quality: Quality
    by_rule: dict[str, Quality]
    by_style: dict[str, Quality]
    controls: ReferenceTextRates | None
    comparison: GraderChange | None
    failures: list[str]
    disputes: list[str]
    """Ids of the texts on which any two raters differ, those with a YES first."""
    items: list[GradedText]


def write_record(report: AgreementReport, path: Path) -> None:
    """Write a report as JSON; the file is replaced in one step, and its folder is created if it is missing.

    Raises:
        DataError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as ex:
        raise DataError(f"{path} cannot be written: {ex.strerror}.") from None
    with replacing(path) as scratch, scratch.open("w", encoding="utf-8") as file:
        json.dump(asdict(report), file, default=str, indent=1, allow_nan=False)


class EarlierItem(BaseModel):
    """A grader's verdict on a text in an earlier record."""

    id: str
    text: str
    verdict: Verdict | None


class _EarlierConfig(BaseModel):
    grader: str


class EarlierRecord(BaseModel):
    """The part of an earlier record that is compared with."""

    config: _EarlierConfig
    items: list[EarlierItem] = Field(min_length=1)


def read_earlier(path: Path) -> EarlierRecord:
    """Read the record of an earlier `audit agreement --json`.

    Raises:
        DataError: the file cannot be read, or is not such a record.
    """
    try:
        return EarlierRecord.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as ex:  # pydantic's errors are ValueErrors
        reason = visible(first_line(ex))
        raise DataError(
            f"{path} is not a record to compare with ({reason}); write one with: audit agreement LABELS --json {path}"
        ) from None
