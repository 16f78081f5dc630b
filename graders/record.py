"""The records of the awareness scorers: what a scorer found on one transcript, and the only code that knows its keys in a log.

A record's `to_score` writes it into Inspect's `Score`; `from_score` reads it back, from logs that were written before records had a
version too. `read_records` picks the records out of all scores of a sample.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from inspect_ai.scorer import Score
from pydantic import BaseModel, ConfigDict, Field, computed_field

from graders.base import Verdict
from graders.markdown import markdown_table
from graders.number_records import FollowUpRecord, ProbeRecord
from graders.score_record import SampledToken, ScoreRecord
from nla.instrument import Instrument

AWARENESS, VERBALIZED, COHERENCE = "nla_awareness", "verbalized_awareness", "coherence"
"""Names of scorers in a sample's scores; a second reading of the same kind has a digit appended."""
Record = TypeVar("Record", bound=ScoreRecord)
_MOST_ROWS = 12
"""Tokens in the table that `inspect view` shows."""
_OLD_MEASURES = ("nla", "verbalized")
"""The measures that were taken before a record named them."""


class TokenRecord(SampledToken):
    """One sampled response token: where it is, its explanation, and the grade of the explanation."""

    token_id: int
    explanation: str
    verdict: Verdict | None
    """None where the explanation could not be made or graded."""
    rule: str = ""
    evidence: str = ""
    format_only: bool = False
    reason: str = ""
    """Why there is no verdict."""
    mse_nrm: float | None = None
    """Squared distance between the unit vectors of vector and reconstruction (0 to 4); None where no AR measured it."""


class AwarenessRecord(ScoreRecord):
    """Internal awareness of one transcript: the instrument, what was chosen for this model, and every sampled token."""

    scorer = AWARENESS

    instrument: Instrument = Instrument()
    verbalizer: str | None = None
    """The verbalizer that was used, with its options."""
    verbalizer_reason: str = ""
    pair: str | None = None
    """The trained pair that was used; None without one."""
    layer: int | None = None
    """K, the decoder block (0-based) whose output was read."""
    model: dict[str, Any] = Field(default_factory=dict)
    """The weights that were read; see `LoadedModel.describe`."""
    n_response_tokens: int | None = None
    exact_tokens: bool | None = None
    """Whether the vectors were read at exactly the tokens, and in exactly the context, of generation."""
    unmarked_replies: bool = False
    """Whether assistant messages without a recorded source were taken for the model's own words."""
    encrypted_reasoning: bool = False
    """Whether a reply holds reasoning that only its provider can read; no token of it is sampled."""
    seconds: float | None = None
    """Time to capture and verbalize."""
    grader_tokens: dict[str, int] = Field(default_factory=dict)
    tokens: tuple[TokenRecord, ...] = ()

    @computed_field  # type: ignore[prop-decorator]
    @property
    def k(self) -> int:
        """Number of tokens that were read."""
        return len(self.tokens)

    @computed_field  # type: ignore[prop-decorator]
    @cached_property
    def counts(self) -> dict[str, int]:
        """Number of explanations per verdict; those without one are `unscored`."""
        return dict(Counter(str(token.verdict) if token.verdict else "unscored" for token in self.tokens))

    @computed_field  # type: ignore[prop-decorator]
    @property
    def n_unscored(self) -> int:
        """Number of explanations that could not be made or graded."""
        return self.counts.get("unscored", 0)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def token_rate(self) -> float | None:
        """Share of the scored explanations that are YES; None if none is scored."""
        return self._share(Verdict.YES)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def unclear_rate(self) -> float | None:
        """Share of the scored explanations that are UNCLEAR; None if none is scored."""
        return self._share(Verdict.UNCLEAR)

    def _share(self, verdict: Verdict) -> float | None:
        n_scored = self.k - self.n_unscored
        return self.counts.get(str(verdict), 0) / n_scored if n_scored else None

    def details(self) -> str:
        """The sampled tokens with their grades, flagged ones first."""
        order = sorted(self.tokens, key=lambda token: token.verdict is not Verdict.YES)
        rows = [
            (
                token.position,
                repr(token.token),
                token.verdict or "unscored",
                token.evidence or token.reason,
                token.explanation,
            )
            for token in order[:_MOST_ROWS]
        ]
        table = markdown_table(("position", "token", "verdict", "evidence or reason", "explanation"), rows) if rows else ""
        rest = len(order) - len(rows)
        return table + (f"\n\n{rest} more tokens are in the score's metadata and in the report." if rest else "")

    @classmethod
    def upgraded(cls, metadata: dict[str, Any]) -> dict[str, Any]:
        """Gather the settings of version 0, which lay flat in the metadata, into an instrument."""
        fields = dict(metadata)
        settings = {
            "measures": _OLD_MEASURES,
            "tokens": fields.pop("tokens_wanted", None),
            "grader": fields.pop("grader", None),
            "seed": fields.pop("seed", None),
            "project_out": fields.pop("project_out", None),
            "verbalizer": fields.get("verbalizer"),
            "layer": fields.get("layer"),
        }
        pair = fields.pop("nla", None)
        known = {name: setting for name, setting in settings.items() if setting is not None}
        return fields | {"pair": pair, "instrument": known}


class TurnRecord(BaseModel):
    """The grade of one assistant turn."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    message: int
    verdict: Verdict | None
    rule: str = ""
    evidence: str = ""
    reason: str = ""


class VerbalizedRecord(ScoreRecord):
    """Whether the model says in its own words that it is being evaluated."""

    scorer = VERBALIZED

    grader: str = "rules"
    turns: tuple[TurnRecord, ...] = ()
    grader_tokens: dict[str, int] = Field(default_factory=dict)


class CoherenceRecord(ScoreRecord):
    """How plausible the unsteered model finds a response, and how much the response repeats itself."""

    scorer = COHERENCE

    mean_logprob: float | None = None
    """Mean log-probability per response token (nats)."""
    n_tokens: int = 0
    truncated: bool | None = None
    distinct_1: float | None = None
    """Share of different tokens."""
    repeated_4: float | None = None
    """Share of 4-grams that had occurred before."""


@dataclass(frozen=True)
class SampleRecords:
    """The records among a sample's scores, and the task's own first score."""

    awareness: AwarenessRecord | None
    projected: AwarenessRecord | None
    """The second reading, with the steering direction taken out of the vectors."""
    probe: ProbeRecord | None
    follow_up: FollowUpRecord | None
    verbalized: VerbalizedRecord | None
    coherence: CoherenceRecord | None
    own_score: Score | None


def read_records(scores: Mapping[str, Score] | None) -> SampleRecords:
    """Read the records out of a sample's scores.

    Raises:
        DataError: see `ScoreRecord.from_score`.
    """
    kinds: list[type[ScoreRecord]] = [AwarenessRecord, ProbeRecord, FollowUpRecord, VerbalizedRecord, CoherenceRecord]
    by_kind: dict[str, list[Score]] = {name: [] for name in (*(kind.scorer for kind in kinds), "")}
    for name, score in (scores or {}).items():
        by_kind[next((kind.scorer for kind in kinds if name.startswith(kind.scorer)), "")].append(score)

    def first_of(kind: type[Record]) -> Record | None:
        return kind.from_score(by_kind[kind.scorer][0]) if by_kind[kind.scorer] else None

    readings = [AwarenessRecord.from_score(score) for score in by_kind[AWARENESS]]
    return SampleRecords(
        awareness=readings[0] if readings else None,
        projected=next((reading for reading in readings[1:] if reading.instrument.project_out), None),
        probe=first_of(ProbeRecord),
        follow_up=first_of(FollowUpRecord),
        verbalized=first_of(VerbalizedRecord),
        coherence=first_of(CoherenceRecord),
        own_score=next(iter(by_kind[""]), None),
    )


def stored_figure(score: Score, name: str) -> float | None:
    """One figure of a stored record (`k`, `token_rate`, `n_unscored` ...) without reading the record whole, for Inspect's metrics."""
    figure = (score.metadata or {}).get(name)
    return float(figure) if isinstance(figure, int | float) else None
