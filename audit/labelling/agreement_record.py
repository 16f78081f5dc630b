"""The arguments and results of `audit agreement`, as a JSON record with which a later run can be compared.

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
    """The arguments of `audit agreement`. A bound that is None is not checked.

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
    """Logs of deployment traffic, or folders of them, whose explanations are used as reference texts."""
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
            raise ConfigError(f"--json and --against are both {self.json}; give two paths, or the earlier record would be lost.")


@dataclass(frozen=True)
class ReferenceTextRates:
    """YES rate over explanations of deployment transcripts, share of transcripts with at least one YES, and a list of the YES verdicts."""

    logs: list[str]
    explanations: Estimate
    transcripts: Estimate
    yes: list[dict[str, str]]


@dataclass(frozen=True)
class GraderChange:
    """The grader compared with an earlier one, on the texts of both records. The test compares how often each is right about YES."""

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
    """Description of the reference verdicts for people."""
    n_unlabelled: int
    main: Pair
    """The reference and the grader."""
    pairs: list[Pair]
    """Every pair of raters (annotators and the grader). With one annotator, this is the same pair as `main`."""
    pooled: Agreement | None
    """Agreement of all annotators, without the grader; None with fewer than three annotators."""
    quality: Quality
    by_rule: dict[str, Quality]
    by_style: dict[str, Quality]
    controls: ReferenceTextRates | None
    comparison: GraderChange | None
    failures: list[str]
    disputes: list[str]
    """Ids of the texts on which any two raters differ. Texts with at least one YES come first."""
    items: list[GradedText]


def write_record(report: AgreementReport, path: Path) -> None:
    """Write a report as JSON. The file is replaced in one step, and its folder is created if it does not exist.

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
    """The parts of an earlier record that the comparison needs."""

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
