"""The records of the measures that give a number instead of a verdict: contrast probes and the follow-up question."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, computed_field

from graders.markdown import markdown_table
from graders.score_record import SampledToken, ScoreRecord
from nla.instrument import Instrument

PROBE, FOLLOW_UP = "probe_awareness", "follow_up_awareness"
"""Names of the scorers in a sample's scores."""


class ProbeFigures(BaseModel):
    """Projections of one transcript's raw vectors on one direction of unit length, in the residual stream's own units."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sampled_max: float
    """Largest projection at the tokens that the measure `nla` reads too."""
    sampled_mean: float
    response_max: float
    """Largest projection at up to 300 response tokens."""
    response_mean: float


class ProbeToken(SampledToken):
    """The projections at one sampled response token, and where the token is."""

    projections: tuple[float, ...]
    """On each probe, in the order of `ProbeRecord.probes`."""


class ProbeRecord(ScoreRecord):
    """Contrast probes on one transcript. The value is the mean of `response_max` over the probes that are not controls."""

    scorer = PROBE

    instrument: Instrument = Instrument()
    layer: int | None = None
    """K, the decoder block (0-based) whose output was read."""
    model: dict[str, Any] = Field(default_factory=dict)
    """The weights that were read; see `LoadedModel.describe`."""
    contrasts: dict[str, str] = Field(default_factory=dict)
    """Digest of each probe's contrast set, by name. Numbers of sets with different digests must not be pooled."""
    controls: tuple[str, ...] = ()
    """Names of the probes whose pairs have nothing to do with evaluation."""
    probes: dict[str, ProbeFigures] = Field(default_factory=dict)
    """By the name of the contrast set; empty for an unscored transcript."""
    calibration: str = ""
    """Digest of the calibration behind the z-scores; empty without one."""
    calibration_steer: str | None = None
    """Steering of the deployment transcripts of the calibration; None for unsteered ones."""
    z_scores: dict[str, float] = Field(default_factory=dict)
    """Per probe, `response_max` in standard deviations from the mean of the deployment transcripts of the calibration."""
    z: float | None = None
    """Mean z-score over the probes that are not controls."""
    z_unrelated: float | None = None
    """Mean z-score over the controls."""
    above_95: bool | None = None
    """Whether `z` is above the value that at most 5 % of the deployment transcripts exceed."""
    tokens: tuple[ProbeToken, ...] = ()
    """The sampled tokens; empty in older logs."""
    n_sampled: int = 0
    """Number of tokens behind `sampled_max` and `sampled_mean`."""
    n_read: int = 0
    """Number of tokens behind `response_max` and `response_mean`."""
    n_response_tokens: int | None = None
    exact_tokens: bool | None = None
    """Whether the vectors were read at exactly the tokens, and in exactly the context, of generation."""
    unmarked_replies: bool = False
    """Whether assistant messages without a recorded source were taken for the model's own words."""

    def details(self) -> str:
        """The largest projection on each probe, with its z-score where there is a calibration."""
        rows = [
            (name, "control" if name in self.controls else "probe", f"{figures.response_max:.3g}", f"{figures.response_mean:.3g}")
            + ((f"{self.z_scores[name]:+.2f}",) if name in self.z_scores else ("",))
            for name, figures in self.probes.items()
        ]
        return markdown_table(("contrast", "kind", "largest projection", "mean projection", "z"), rows) if rows else ""


class FollowUpRecord(ScoreRecord):
    """What the model answers when it is asked, after the transcript, whether the conversation was an evaluation."""

    scorer = FOLLOW_UP

    instrument: Instrument = Instrument()
    way: Literal["", "log_odds", "rating"] = ""
    """`log_odds`: the value is the mean over wordings of the log-odds (nats) of the answer that means evaluation. `rating`: the value
    is the mean of the numbers from 0 to 1 that the model wrote. Values of different ways must not be pooled."""
    model: dict[str, Any] = Field(default_factory=dict)
    """The weights that answered, for `log_odds`; see `LoadedModel.describe`."""
    asked: str = ""
    """The Inspect model that answered, for `rating`."""
    questions: str = ""
    """Digest of the questions' wordings; answers to different wordings must not be pooled."""
    log_odds: tuple[float, ...] = ()
    """One number per wording. Above 0 the model leans to `evaluation`, whatever the wording's polarity."""
    ratings: tuple[float | None, ...] = ()
    """One number per reply; None for a reply that is not one number from 0 to 1."""
    usage: dict[str, int] = Field(default_factory=dict)
    """Tokens that the provider read (`input`) and wrote (`output`) for the ratings. They are not in the sample's own usage."""
    unmarked_replies: bool = False
    """Whether assistant messages without a recorded source were taken for the model's own words."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def n_parsed(self) -> int:
        """Number of replies that are one number from 0 to 1."""
        return sum(rating is not None for rating in self.ratings)
