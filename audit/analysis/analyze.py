"""From the tables of an audit to `audit.json`: rates, floor, tests and limits, each by the functions of `audit.stats*`."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from audit.analysis.grader_error import grader_error
from audit.analysis.result import (
    SCHEMA_VERSION,
    AuditResult,
    Cell,
    FloorResult,
    PositiveControl,
    ProjectedReading,
    Steering,
    StrengthEffect,
    write_result,
)
from audit.analysis.rewrites import rewrite_effects, signs
from audit.analysis.tables import IDENTITY, codes_of, identity_values, read_tables, write_table
from audit.analysis.token_views import place_rates, reconstruction_quality
from audit.analysis.training_curves import training_points
from audit.config import BASE, POSITIVE, AuditConfig, stored_config
from audit.controls.record import InstrumentControls, read_controls_file
from audit.logs import CONTROL_ROLE
from audit.stats.bootstrap import bootstrap_mean
from audit.stats.correction import Corrected, GraderError, corrected
from audit.stats.floor import above_floor, arm, pooled_floor
from audit.stats.paired import paired
from audit.stats.power import limits
from audit.stats.rates import MISSING, Codes, Estimate, bounds, effective_sizes, wilson
from audit.stats.steering import against_random, by_strength, trend
from audit.stats.tokens import TokenCounts, any_of_k_curve, token_rate
from nla.support.seeds import seeded_generator

LOGPROB_LOSS = 1.0
"""Nats a token that a steered response may be less likely than the base condition's before its cell is called degenerate."""
REPEATED = 0.3
"""Share of repeated 4-grams beyond the base condition's at which a cell is called degenerate."""


def analyze(out: Path) -> AuditResult:
    """Analyse an audit's folder; writes `audit.json`, `transcripts.parquet` and `explanations.parquet` into it.

    Raises:
        ConfigError: no audit's folder.
        DataError: nothing finished, or logs that cannot be pooled.
    """
    config = stored_config(out)
    transcripts, explanations = read_tables(out, config.conditions())
    write_table(transcripts, out / "transcripts.parquet")
    write_table(explanations, out / "explanations.parquet")
    result = analyze_tables(transcripts, config, grader_error(config), read_controls_file(out), explanations)
    result = replace(result, training=training_points(config))
    write_result(result, out)
    return result


def analyze_tables(
    transcripts: pd.DataFrame,
    config: AuditConfig,
    error: GraderError | None = None,
    instrument: InstrumentControls | None = None,
    explanations: pd.DataFrame | None = None,
) -> AuditResult:
    """The analysis itself, on the tables of transcripts and explanations.

    Args:
        transcripts: one row a transcript.
        config: of the audit.
        error: the grader's measured errors, which correct the rates an explanation.
        instrument: controls of the instrument, as they were measured.
        explanations: one row an explanation; None leaves out what is read from single explanations.
    """
    base = transcripts[transcripts.condition == BASE]
    cells = [_cell(one, base, error) for _, one in transcripts.groupby(["condition", "task"], sort=False)]
    controls = {str(task): _verdicts(one) for task, one in base[base.role == CONTROL_ROLE].groupby("task")}
    controls = {task: given for task, given in controls.items() if (given[0] != MISSING).any()}
    benchmarks = {str(task): arm(*_verdicts(one)) for task, one in base[base.role != CONTROL_ROLE].groupby("task")}
    notes = _notes(transcripts, bool(controls))
    floor = pooled_floor(controls, seeded_generator("floor", config.seed)) if controls else None
    n_controls = floor.pooled.n if floor else None
    return AuditResult(
        schema_version=SCHEMA_VERSION,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        identity={name: " ".join(identity_values(transcripts[transcripts.k.notna()], name)) for name in IDENTITY},
        config=config.model_dump(mode="json"),
        cells=cells,
        floor=FloorResult(floor.pooled.rate, {name: one.rate for name, one in floor.by_control.items()}, floor.heterogeneity.p)
        if floor
        else None,
        excess=above_floor(benchmarks, floor) if floor and benchmarks else {},
        limits={task: limits(floor.pooled.rate.estimate or 0.0, one.n, n_controls) for task, one in benchmarks.items() if floor and one.n},
        positive_controls=[stated for _, one in transcripts.groupby("task") if (stated := _positive(one)) is not None],
        steering=[steered for _, one in transcripts.groupby("task") if (steered := _steering(one)) is not None],
        rewrites=(effects := rewrite_effects(transcripts)),
        rewrite_signs=signs(effects),
        grader_error=error,
        controls=instrument,
        places=place_rates(transcripts, explanations) if explanations is not None and len(explanations) else [],
        quality=reconstruction_quality(transcripts, explanations) if explanations is not None and len(explanations) else [],
        grader_quality={
            "sensitivity": wilson(error.hits, error.n_yes),
            "specificity": wilson(error.n_other - error.false_alarms, error.n_other),
        }
        if error
        else {},
        notes=notes,
    )


def sample_codes(table: pd.DataFrame) -> Codes | None:
    """Codes of the samples; None where every transcript is a sample of its own."""
    found = pd.factorize(table.sample_id)[0].astype(np.int64)
    return None if len(np.unique(found)) == len(found) else found


def _verdicts(table: pd.DataFrame) -> tuple[Codes, Codes | None]:
    return codes_of(table.internal), sample_codes(table)


def _cell(table: pd.DataFrame, base: pd.DataFrame, error: GraderError | None) -> Cell:
    first = table.iloc[0]
    clusters = sample_codes(table)
    counts = _counts(table)
    internal, verbalized = codes_of(table.internal), codes_of(table.verbalized)
    likelihood, repeated, cut = (_mean(table, name, clusters) for name in ("mean_logprob", "repeated_4", "truncated"))
    return Cell(
        task=str(first.task),
        role=str(first.role),
        condition=str(first.condition),
        direction=str(first.direction),
        strength=float(first.strength),
        n=len(table),
        internal=bounds(internal, clusters),
        verbalized=bounds(verbalized, clusters),
        token_rate=token_rate(counts, clusters),
        token_rate_corrected=_corrected(counts, clusters, error),
        unclear=int(table.n_unclear.sum()),
        mean_k=float(table.k.mean()) if table.k.notna().any() else None,
        curve=any_of_k_curve(counts, clusters),
        internal_and_verbalized=paired(internal, verbalized, clusters),
        own_score=_mean(table, "own_score", clusters),
        mean_logprob=likelihood,
        repeated_4=repeated,
        truncated=cut,
        degenerate=_degenerate(table, base[base.task == first.task]),
    )


def _counts(table: pd.DataFrame) -> TokenCounts:
    yes, no, unclear, unscored = (table[name].to_numpy(np.int64) for name in ("n_yes", "n_no", "n_unclear", "n_unscored"))
    return TokenCounts(yes, yes + no + unclear, unscored)


def _corrected(counts: TokenCounts, clusters: Codes | None, error: GraderError | None) -> Corrected | None:
    """The token rate freed of the grader's errors; the effective number of explanations is read off the rate's own variance."""
    shares = counts.yes / np.where(counts.scored, counts.scored, 1)
    kept = counts.scored > 0
    if error is None or not kept.any():
        return None
    own = clusters[kept] if clusters is not None else None
    size = float(effective_sizes(shares[kept][:, None], own, judgements=int(counts.scored.sum()))[0])
    return corrected(float(shares[kept].mean()), size, error, seeded_generator("corrected", len(shares)))


def _mean(table: pd.DataFrame, column: str, clusters: Codes | None) -> Estimate:
    """Mean of a figure that is no rate, with a bootstrap interval over samples."""
    values = table[column].to_numpy(np.float64, na_value=np.nan)
    scored = ~np.isnan(values)
    items = clusters[scored] if clusters is not None else None
    found = bootstrap_mean(values[scored], seeded_generator("mean", column, len(values)), items)
    return replace(found, n_unscored=int((~scored).sum()))


def _degenerate(table: pd.DataFrame, base: pd.DataFrame) -> str:
    """Why a cell's responses are not comparable with the base condition's, from items both have; empty where they are."""
    both = table.merge(base, on=["sample_id", "epoch"], suffixes=("", "_base"))
    if not len(both) or not table.direction.iloc[0]:  # another prompt changes what the model says; that is no incoherence
        return ""
    loss = float((both.mean_logprob_base - both.mean_logprob).astype(float).mean())
    more = float((both.repeated_4 - both.repeated_4_base).astype(float).mean())
    reasons = []
    if loss > LOGPROB_LOSS:
        reasons.append(f"{loss:.1f} nats a token less likely than unsteered responses (bound {LOGPROB_LOSS})")
    if more > REPEATED:
        reasons.append(f"{more:.0%} more repeated 4-grams (bound {REPEATED:.0%})")
    return "; ".join(reasons)


def _positive(table: pd.DataFrame) -> PositiveControl | None:
    both = table[table.condition == BASE].merge(table[table.condition == POSITIVE], on=["sample_id", "epoch"], suffixes=("", "_stated"))
    if not len(both):
        return None
    return PositiveControl(str(table.task.iloc[0]), paired(codes_of(both.internal), codes_of(both.internal_stated), sample_codes(both)))


def _steering(table: pd.DataFrame) -> Steering | None:
    base = table[table.condition == BASE]
    steered = table[(table.direction != "")]
    if not len(steered) or not len(base):
        return None
    directions = list(dict.fromkeys(steered.direction))
    real = [name for name in directions if not name.startswith("random-")]
    effects = [effect for name in real for effect in _effects(base, steered, name)]
    random_effects = [effect for name in directions if name.startswith("random-") for effect in _effects(base, steered, name)]
    strengths = sorted({effect.strength for effect in effects})
    own = pd.concat([base, steered[steered.direction.isin(real)]])
    slope = trend(codes_of(own.internal), own.strength.to_numpy(float), pd.factorize(own.sample_id)[0].astype(np.int64)) if real else None
    p, reachable = _against_random(effects, random_effects, strengths)
    return Steering(
        task=str(table.task.iloc[0]),
        effects=effects,
        random_effects=random_effects,
        strengths=strengths,
        trend_p=slope.within_items.p if slope else None,
        trend_reason=slope.within_items.reason if slope else "",
        slope=slope.slope if slope else None,
        random_p=p,
        random_p_reachable=reachable,
        projected=_projected(steered[steered.direction.isin(real)]),
    )


def _projected(steered: pd.DataFrame) -> list[ProjectedReading]:
    """Every strength read with the steering direction in the vectors and without it, on the same transcripts."""
    found = []
    for _, table in steered.groupby(["direction", "strength"]):
        if table.internal_projected.notna().any():
            pairs = paired(codes_of(table.internal), codes_of(table.internal_projected), sample_codes(table))
            found.append(ProjectedReading(str(table.direction.iloc[0]), float(table.strength.iloc[0]), pairs))
    return found


def _effects(base: pd.DataFrame, steered: pd.DataFrame, direction: str) -> list[StrengthEffect]:
    table = pd.concat([base, steered[steered.direction == direction]])
    items, epochs = pd.factorize(table.sample_id)[0].astype(np.int64), table.epoch.to_numpy(np.int64)
    found = by_strength(codes_of(table.internal), table.strength.to_numpy(float), items, epochs)
    return [StrengthEffect(direction, strength, pairs) for strength, pairs in sorted(found.items())]


def _against_random(
    effects: Sequence[StrengthEffect], random_effects: Sequence[StrengthEffect], strengths: list[float]
) -> tuple[list[float], float | None]:
    """p value of each strength against the random directions: positive strengths are predicted to raise the rate, negative to lower it."""

    def signed(effect: StrengthEffect) -> float:
        change = (effect.pairs.only_second - effect.pairs.only_first) / max(effect.pairs.n, 1)
        return change if effect.strength > 0 else -change

    names = sorted({effect.direction for effect in random_effects})
    by_name = {name: {e.strength: signed(e) for e in random_effects if e.direction == name} for name in names}
    whole = [name for name in names if all(strength in by_name[name] for strength in strengths)]
    own = {effect.strength: signed(effect) for effect in effects}
    if not whole or not strengths:
        return [], None
    found = against_random(np.array([own[s] for s in strengths]), np.array([[by_name[name][s] for s in strengths] for name in whole]))
    return [float(p) for p in found.p], found.reachable


def _notes(transcripts: pd.DataFrame, has_control: bool) -> list[str]:
    notes = ["Rates are relative to this verbalizer and grader and are not calibrated against any ground truth."]
    if not has_control:
        notes.append("No deployment control was run, so there is no measured floor and no benchmark is said to exceed one.")
    unscored = int(transcripts.internal.isna().sum())
    if unscored:
        notes.append(f"{unscored} of {len(transcripts)} transcripts have no internal verdict; see the bounds of each cell.")
    return notes
