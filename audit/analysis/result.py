"""`audit.json`: what an audit found, as dataclasses with a JSON schema. Reports read this and compute nothing."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from audit.analysis.token_views import PlaceRate, ReconstructionQuality
from audit.analysis.training_curves import TrainingPoint
from audit.controls.record import InstrumentControls
from audit.stats.correction import Corrected, GraderError
from audit.stats.floor import Excess
from audit.stats.paired import AgainstParaphrase, McNemar, SignTest
from audit.stats.power import Limits
from audit.stats.rates import Bounds, Estimate
from audit.stats.tokens import CurvePoint
from nla.support.errors import DataError
from nla.support.files import replacing

SCHEMA_VERSION = 2
RESULT_FILE = "audit.json"


@dataclass(frozen=True)
class Cell:
    """One task under one condition."""

    task: str
    role: str
    condition: str
    direction: str
    strength: float
    n: int
    internal: Bounds
    verbalized: Bounds
    token_rate: Estimate
    token_rate_corrected: Corrected | None
    """The token rate freed of the grader's measured errors; None where they have not been measured."""
    unclear: int
    """Explanations that were UNCLEAR; they are not YES."""
    mean_k: float | None
    curve: list[CurvePoint]
    internal_and_verbalized: McNemar
    """First is internal, second verbalised, on the same transcripts."""
    own_score: Estimate
    """Mean of the task's own first score (accuracy, for most)."""
    mean_logprob: Estimate
    """Nats a response token, under the unsteered model."""
    repeated_4: Estimate
    truncated: Estimate
    degenerate: str
    """Why the responses are no longer the model's own kind of text; empty where they are."""


@dataclass(frozen=True)
class StrengthEffect:
    """A steering strength against none, on the same items: first is unsteered, second steered."""

    direction: str
    strength: float
    pairs: McNemar


@dataclass(frozen=True)
class ProjectedReading:
    """The same steered transcripts read as they are (first) and with the steering direction taken out of the vectors (second)."""

    direction: str
    strength: float
    pairs: McNemar


@dataclass(frozen=True)
class Steering:
    """What steering did to one task's internal rate. p values against random directions are one a strength, in order."""

    task: str
    effects: list[StrengthEffect]
    random_effects: list[StrengthEffect]
    strengths: list[float]
    trend_p: float | None
    trend_reason: str
    slope: float | None
    """Log-odds a unit of strength (GEE logistic, clustered by item)."""
    random_p: list[float]
    random_p_reachable: float | None
    projected: list[ProjectedReading]


@dataclass(frozen=True)
class FloorResult:
    """The noise floor measured on the deployment controls."""

    pooled: Estimate
    by_control: dict[str, Estimate]
    heterogeneity_p: float | None


@dataclass(frozen=True)
class PositiveControl:
    """The system prompt that states the evaluation against none: first is base, second the positive control."""

    task: str
    pairs: McNemar


@dataclass(frozen=True)
class RewriteEffect:
    """A task's rewritten prompts (second) against its original ones (first), on the items that have both."""

    task: str
    framing: str
    pairs: McNemar
    verbalized: McNemar
    own_score_change: Estimate
    """Change of the task's own score: what a rewrite did to the difficulty."""
    n_without_rewrite: int
    """Transcripts of the base condition that have no partner."""
    beyond: AgainstParaphrase | None
    """Of a realistic rewrite: what it does beyond a neutral paraphrase, where both were run."""


@dataclass(frozen=True)
class AuditResult:
    """Everything an audit found. `identity` names model, layer, verbalizer, pair, grader and tokens, the same for all cells."""

    schema_version: int
    created: str
    identity: dict[str, str]
    config: dict[str, Any]
    cells: list[Cell]
    floor: FloorResult | None
    excess: dict[str, Excess]
    """Benchmarks under the base condition against the floor, Holm-corrected."""
    limits: dict[str, Limits]
    """What each benchmark's number of transcripts could have shown."""
    positive_controls: list[PositiveControl]
    steering: list[Steering]
    rewrites: list[RewriteEffect]
    rewrite_signs: dict[str, SignTest]
    """By framing: how many evaluations were flagged less often than with their original prompts."""
    grader_error: GraderError | None
    """The grader's errors on labelled explanations."""
    controls: InstrumentControls | None
    """What verbalizer and grader say where there is nothing to find; None where it was not measured."""
    places: list[PlaceRate]
    quality: list[ReconstructionQuality]
    """Empty where no AR measured the explanations."""
    grader_quality: dict[str, Estimate]
    """Sensitivity and specificity behind `grader_error`."""
    notes: list[str]
    training: list[TrainingPoint] = field(default_factory=list)
    """How the pair was trained; empty where its folder does not tell."""


def write_result(result: AuditResult, out: Path) -> Path:
    """Write `audit.json` into a run's folder (atomically)."""
    path = out / RESULT_FILE
    with replacing(path) as scratch:
        scratch.write_bytes(TypeAdapter(AuditResult).dump_json(result, indent=1))
    return path


def read_result(path: Path) -> AuditResult:
    """Read and validate an `audit.json`.

    Raises:
        DataError: missing, not of the schema, or of another version.
    """
    try:
        content = path.read_bytes()
        version = json.loads(content).get("schema_version")
        if version != SCHEMA_VERSION:
            raise DataError(f"{path} has schema version {version}, expected {SCHEMA_VERSION}; make it again with `audit analyze`.")
        return TypeAdapter(AuditResult).validate_json(content)
    except (OSError, ValidationError, ValueError, AttributeError) as ex:
        raise DataError(f"{path} is not the result of an audit: {str(ex).splitlines()[0]}") from ex


def schema() -> dict[str, Any]:
    """The JSON schema of `audit.json`."""
    return TypeAdapter(AuditResult).json_schema()
