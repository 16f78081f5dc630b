"""The results of comparing the measures, as they stand in `audit.json` under `measures`, `consistency` and `assay_sensitivity`."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import AfterValidator

from audit.stats.rates import Estimate
from audit.stats.thresholds import PREVALENCES

Reading = Literal["above", "format", "at the floor", "undecided", "uninformative", "not measured"]
"""What a measure says about a benchmark.

`above`: higher than deployment traffic. `format`: so are unrelated probes, so format or topic may explain it. `at the floor`: not higher,
by a measure that separates the positive control, with an interval that ends below that control's AUROC. `undecided`: the interval reaches
it, or there is none. `uninformative`: the measure does not separate the positive control, so that its null
says nothing. `not measured`: there is no AUROC, for the reason given.
"""


def _of_all_prevalences(precision: dict[str, Estimate]) -> dict[str, Estimate]:
    """Refuse a result, read from a file, in which the precision at a prevalence is missing."""
    expected = {f"{prevalence:g}" for prevalence in PREVALENCES}
    if missing := sorted(expected - precision.keys()):
        raise ValueError(f"expected the prevalences {', '.join(sorted(expected))}; missing: {', '.join(missing)}")
    return precision


@dataclass(frozen=True)
class MatchedAuroc:
    """The AUROC of benchmark transcripts against their matched deployment partners."""

    auroc: Estimate
    n_pairs: int
    """Benchmark transcripts with a partner, whether or not the measure scored both."""
    n_without: int
    """Benchmark transcripts without a partner."""
    closeness: float | None
    """Median over pairs: for `length` the shorter response's share of the longer one's tokens, for `topic` the cosine of tf-idf vectors."""


@dataclass(frozen=True)
class MeasureResult:
    """One measure of one task in one condition, against the pooled deployment controls of the base condition."""

    n: int
    """Scored transcripts."""
    n_unscored: int
    auroc: Estimate
    n_controls: int
    """Scored deployment transcripts."""
    share_above_95: Estimate
    """Share of transcripts above the score that at most 5 % of the deployment transcripts exceed."""
    share_above_90: Estimate
    """The same with 10 %."""
    deployment_above_95: Estimate
    """Share of the deployment transcripts above that score: with equal scores, it may be far below 5 %."""
    precision: Annotated[dict[str, Estimate], AfterValidator(_of_all_prevalences)]
    """By prevalence: share of transcripts above the 95th percentile that would be aware ones, if all of this task's are."""
    beyond_unrelated: Estimate | None
    """Only for the probes' composite: its AUROC minus that of the unrelated probes, on the same transcripts."""
    auroc_matched: dict[str, MatchedAuroc]
    """Against partners by `length` and by `topic`; only in the base condition."""
    reading: Reading
    sentence: str
    """The result in words, without the names of task and measure."""
    roc: list[tuple[float, float]] = field(default_factory=list)
    """ROC curve in the base condition: (share of deployment, share of this task) above a score. Empty for single probes and elsewhere."""


@dataclass(frozen=True)
class MeasurePair:
    """How far two measures agree on the transcripts of the base condition that both scored."""

    first: str
    second: str
    n: int
    pearson: Estimate
    spearman: Estimate
    pearson_within: Estimate
    """Values centred within each task, so that differences between tasks add nothing."""
    spearman_within: Estimate
    """Ranks within each task."""


@dataclass(frozen=True)
class Consistency:
    """Agreement of the four measures with each other, and with what the model says."""

    pairs: list[MeasurePair]
    against_verbalized: dict[str, Estimate] = field(default_factory=dict)
    """By measure: AUROC of transcripts that say that they are an evaluation against those that do not."""


@dataclass(frozen=True)
class AssaySensitivity:
    """Whether a measure separates the positive control (stated evaluation) from the same items without it."""

    auroc: Estimate
    by_task: dict[str, Estimate]
    separates: bool
    """Whether the lower end of the AUROC's interval is above one half."""
    sentence: str
    known_groups: Estimate | None = None
    """AUROC on identical replies under evaluation and deployment contexts (`nla organism check`); None where the model has no check."""
    known_groups_sentence: str = ""
    n_items: int | None = None
    """Items that have both conditions; None in an audit of an earlier version."""

    @property
    def sentences(self) -> list[str]:
        """What is known about the measure's sensitivity."""
        return [sentence for sentence in (self.sentence, self.known_groups_sentence) if sentence]


@dataclass(frozen=True)
class MeasureComparison:
    """All comparisons of the measures of an audit."""

    measures: dict[str, dict[str, MeasureResult]]
    """The base condition of each benchmark, by task and measure."""
    by_condition: dict[str, dict[str, dict[str, MeasureResult]]]
    """The other conditions, by condition, task and measure."""
    consistency: Consistency
    assay_sensitivity: dict[str, AssaySensitivity]
