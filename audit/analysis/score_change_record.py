"""What awareness does to a benchmark's own score, as `audit.json` holds it.

Every difference is positive if awareness inflates the score: the other side minus steered for strengths away from awareness (negative),
and steered minus the other side for positive strengths.
"""

from dataclasses import dataclass, field

from audit.stats.association import Association
from audit.stats.paired_scores import ScoreDifference
from audit.stats.rates import Estimate


@dataclass(frozen=True)
class BeyondControls:
    """The own score under the steering vector against that under unrelated contrasts, on the same items."""

    controls: list[str]
    """Specifications of the controls (NAME:STRENGTH)."""
    inflation: ScoreDifference
    """Mean over the controls minus steered away, over items; the controls count as given, not as drawn."""
    by_control: dict[str, Estimate]
    """The base condition's score minus each control's, over items (each control's minus the base condition's, for positive strengths)."""
    rank_p: float | None
    """P value of the steering vector's effect ranked among those of the controls (one-sided, in the predicted direction)."""
    rank_p_reachable: float | None
    """The smallest p value that this number of controls allows."""
    loss: Estimate
    """Loss of log-probability per token against base (nats), mean over the controls."""


@dataclass(frozen=True)
class StrengthScores:
    """The own score at one strength of the steering vector."""

    direction: str
    strength: float
    against_base: ScoreDifference
    """Base minus steered (steered minus base, for positive strengths)."""
    loss: Estimate
    """Loss of log-probability per token against base (nats)."""
    degenerate: str
    """Why the steered responses are too incoherent to count; empty if they are not."""
    same_strength: BeyondControls | None = None
    """Against unrelated contrasts of the same strength; None if none were run."""
    matched: BeyondControls | None = None
    """Against unrelated contrasts whose strengths degrade responses as much; None if none were run."""


@dataclass(frozen=True)
class ScoreChange:
    """Whether awareness changes a benchmark's own score, by steering and by association."""

    task: str
    base: Estimate
    """Mean own score of the base condition."""
    is_share: bool
    """Whether all scores lie between 0 and 1, so that 1 percentage point is 0.01."""
    strengths: list[StrengthScores]
    headline: float | None
    """The strength that the sentence is about: the strongest one away from awareness whose responses are coherent."""
    verdict: str
    """inflated, deflated, none (no difference detectable) or unknown."""
    sentence: str
    measures: dict[str, Association] = field(default_factory=dict)
    """Association of each measure with the item's own score in the base condition."""
