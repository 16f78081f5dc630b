"""`audit.json`: the results of an audit as dataclasses with a JSON schema. Reports format these results and compute none."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from audit.analysis.measure_results import AssaySensitivity, Consistency, MeasureResult
from audit.analysis.score_change_record import ScoreChange
from audit.analysis.texts import encodable
from audit.analysis.token_views import PlaceRate, ReconstructionQuality
from audit.analysis.training_curves import TrainingPoint
from audit.config import BASE
from audit.controls.record import InstrumentControls
from audit.controls.sweep_record import SteeringSweep
from audit.stats.correction import Corrected, GraderError
from audit.stats.floor import Excess
from audit.stats.paired import AgainstParaphrase, McNemar, SignTest
from audit.stats.power import Limits
from audit.stats.rates import Bounds, Estimate
from audit.stats.tokens import CurvePoint
from nla.support.display import visible
from nla.support.errors import DataError, first_line

SCHEMA_VERSION = 2
RESULT_FILE = "audit.json"
_LARGEST = 1e12
"""Largest absolute number in an `audit.json`; none of its counts and rates comes near it."""


@dataclass(frozen=True)
class Cell:
    """The results of one task in one condition."""

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
    """The token rate corrected for the grader's measured errors; None if they were not measured."""
    unclear: int
    """Number of explanations graded UNCLEAR, which do not count as YES."""
    mean_k: float | None
    curve: list[CurvePoint]
    internal_and_verbalized: McNemar
    """Internal (first) against verbalised (second) flags on the same transcripts."""
    own_score: Estimate
    """Mean of the task's own first score (accuracy, for most)."""
    mean_logprob: Estimate
    """Log-probability per response token under the unsteered model (nats)."""
    repeated_4: Estimate
    truncated: Estimate
    degenerate: str
    """Why the steered responses are too incoherent to count; empty if they are not."""


@dataclass(frozen=True)
class StrengthEffect:
    """One steering strength (second) against the unsteered condition (first), on the same items."""

    direction: str
    strength: float
    pairs: McNemar


@dataclass(frozen=True)
class ProjectedReading:
    """The same steered transcripts read twice: unchanged (first) and with the steering direction projected out of the vectors (second)."""

    direction: str
    strength: float
    pairs: McNemar


@dataclass(frozen=True)
class Steering:
    """Effect of steering on one task's internal rate. `random_p` holds one p value against random directions per strength, in order."""

    task: str
    effects: list[StrengthEffect]
    random_effects: list[StrengthEffect]
    strengths: list[float]
    trend_p: float | None
    trend_reason: str
    slope: float | None
    """Log-odds of a flag per unit of strength (logistic GEE, clustered by item)."""
    random_p: list[float]
    random_p_reachable: float | None
    projected: list[ProjectedReading]


@dataclass(frozen=True)
class FloorResult:
    """Flagged rate of the deployment controls: the measured noise floor."""

    pooled: Estimate
    by_control: dict[str, Estimate]
    heterogeneity_p: float | None


@dataclass(frozen=True)
class PositiveControl:
    """A system prompt that states the evaluation (second) against the base condition (first), on the same items."""

    task: str
    pairs: McNemar


@dataclass(frozen=True)
class RewriteEffect:
    """A task's rewritten prompts (second) against its original prompts (first), on the items that have both."""

    task: str
    framing: str
    pairs: McNemar
    verbalized: McNemar
    own_score_change: Estimate
    """Change of the task's own score, which shows whether the rewrite changed the difficulty."""
    n_without_rewrite: int
    """Transcripts of the base condition without a rewritten partner."""
    beyond: AgainstParaphrase | None
    """Change from a realistic rewrite beyond that from a neutral paraphrase, if both were run."""
    original: Estimate | None = None
    """Flagged rate with the original prompts, over the pairs in which both sides were scored; None in results of earlier versions."""
    rewritten: Estimate | None = None
    """Flagged rate with the rewritten prompts, over the same pairs."""


@dataclass(frozen=True)
class AuditResult:
    """All results of an audit. `identity` names model, layer, verbalizer, pair, grader and tokens, which are the same in all cells."""

    schema_version: int
    created: str
    identity: dict[str, str]
    config: dict[str, Any]
    cells: list[Cell]
    floor: FloorResult | None
    excess: dict[str, Excess]
    """Each benchmark's base condition against the floor, Holm-corrected."""
    limits: dict[str, Limits]
    """What each benchmark's number of transcripts could have detected."""
    positive_controls: list[PositiveControl]
    steering: list[Steering]
    rewrites: list[RewriteEffect]
    rewrite_signs: dict[str, SignTest]
    """Per framing: how many benchmarks were flagged less often than with their original prompts."""
    grader_error: GraderError | None
    """The grader's error counts on labelled explanations."""
    controls: InstrumentControls | None
    """Instrument controls; None if they were not run."""
    places: list[PlaceRate]
    quality: list[ReconstructionQuality]
    """Empty if no AR reconstructed the vectors."""
    grader_quality: dict[str, Estimate]
    """Sensitivity and specificity that follow from `grader_error`."""
    notes: list[str]
    training: list[TrainingPoint] = field(default_factory=list)
    """Training curves of the pair; empty if its folder has none."""
    unscored: dict[str, int] = field(default_factory=dict)
    """Number of transcripts without an internal verdict, by reason."""
    missing: list[tuple[str, str]] = field(default_factory=list)
    """(condition, task) of every cell that was asked for and has no successful log."""
    measures: dict[str, dict[str, MeasureResult]] = field(default_factory=dict)
    """Every measure against deployment traffic, by task and measure, in the base condition of each benchmark."""
    measures_by_condition: dict[str, dict[str, dict[str, MeasureResult]]] = field(default_factory=dict)
    """The same in the other conditions, by condition, task and measure."""
    consistency: Consistency = field(default_factory=lambda: Consistency([]))
    """How far the four measures agree with each other."""
    assay_sensitivity: dict[str, AssaySensitivity] = field(default_factory=dict)
    """By measure: whether it separates the positive control, without which its nulls say nothing."""
    score_change: dict[str, ScoreChange] = field(default_factory=dict)
    """What awareness does to each benchmark's own score; benchmarks without a score of their own are left out."""
    sweep: SteeringSweep | None = None
    """The coherence sweep before the steered conditions; None if none was made."""
    generation: str = ""
    """Digest that `audit.json` and its two tables share (`audit.analysis.stored`); empty in results of earlier versions."""

    def measures_of(self, condition: str) -> dict[str, dict[str, MeasureResult]]:
        """Every measure against deployment traffic in one condition, by task and measure; empty for a condition that was not run."""
        return self.measures if condition == BASE else self.measures_by_condition.get(condition, {})

    @property
    def model_name(self) -> str:
        """The model's short name: what the user typed, without the provider and the folders before it; with the adapter if it has one."""
        typed = str(self.config.get("model") or self.identity.get("model", "no model"))
        name = typed.rstrip("/").rpartition("/")[2] or typed
        adapter = self.identity.get("adapter", "none").partition("@")[0]
        return name if adapter in ("none", "", name) else f"{name} + {adapter}"

    @property
    def n_transcripts(self) -> int:
        """Number of transcripts in all cells."""
        return sum(cell.n for cell in self.cells)

    @property
    def n_unscored(self) -> int:
        """Number of transcripts without an internal verdict."""
        return sum(cell.internal.scored.n_unscored for cell in self.cells)


def result_json(result: AuditResult) -> bytes:
    """The content of `audit.json`. NaN and infinities become null, and lone surrogates (which UTF-8 cannot hold) become escapes."""
    content = _encodable(TypeAdapter(AuditResult).dump_python(result))
    return (json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _encodable(content: Any) -> Any:
    if isinstance(content, float) and not math.isfinite(content):
        return None
    if isinstance(content, dict):
        return {encodable(key): _encodable(value) for key, value in content.items()}
    return [_encodable(value) for value in content] if isinstance(content, list | tuple) else encodable(content)


def read_result(path: Path) -> AuditResult:
    """Read and validate an `audit.json`.

    Raises:
        DataError: the file is missing, does not follow the schema, or has another version.
    """
    try:
        content = json.loads(path.read_bytes())
        version = content.get("schema_version") if isinstance(content, dict) else None
        if version != SCHEMA_VERSION:
            raise DataError(
                f"{path} has schema version {visible(version, limit=40)}, expected {SCHEMA_VERSION}; run `audit analyze` again."
            )
        if any(not math.isfinite(number) or abs(number) > _LARGEST for number in _numbers(content)):
            raise DataError(f"{path} holds a number that is not finite, or larger than {_LARGEST:g}; run `audit analyze` again.")
        return TypeAdapter(AuditResult).validate_python(content)
    except ValidationError as ex:
        problem = ex.errors(include_url=False, include_input=False)[0]
        where = visible(".".join(map(str, problem["loc"])), limit=80)
        raise DataError(f"{path} is not the result of an audit: {where}: {problem['msg']}. Run `audit analyze` again.") from ex
    except OSError as ex:
        raise DataError(f"{path} cannot be read: {ex.strerror or ex}. `audit analyze` makes it from the logs of an audit.") from ex
    except (ValueError, RecursionError) as ex:
        raise DataError(f"{path} is not the result of an audit: {visible(first_line(ex), limit=120)}. Run `audit analyze` again.") from ex


def _numbers(content: Any) -> Iterator[float]:
    if isinstance(content, dict | list):
        for value in content.values() if isinstance(content, dict) else content:
            yield from _numbers(value)
    elif isinstance(content, int | float):
        yield content


def schema() -> dict[str, Any]:
    """The JSON schema of `audit.json`."""
    return TypeAdapter(AuditResult).json_schema()
