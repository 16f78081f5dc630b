"""From the tables of an audit to `audit.json`: rates, floor, tests and limits, each computed by the functions of `audit.stats`."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from audit.analysis.grader_error import grader_error
from audit.analysis.known_groups import check_of, with_known_groups
from audit.analysis.measures import compare_measures
from audit.analysis.result import (
    SCHEMA_VERSION,
    AuditResult,
    Cell,
    FloorResult,
    PositiveControl,
)
from audit.analysis.rewrites import rewrite_effects, signs
from audit.analysis.samples import sample_codes
from audit.analysis.score_change import score_changes
from audit.analysis.score_rows import read_scores
from audit.analysis.steering_effects import steering_effects
from audit.analysis.stored import StoredAudit, write_stored
from audit.analysis.tables import IDENTITY, STEER_UNIT, codes_of, identity_values, read_tables, rows_read, rows_with, steering_unit
from audit.analysis.token_views import place_rates, reconstruction_quality
from audit.analysis.training_curves import training_points
from audit.cells import missing_cells
from audit.config import BASE, POSITIVE, AuditConfig, stored_config
from audit.controls.record import InstrumentControls, read_controls_file
from audit.controls.sweep_record import read_sweep
from audit.stats.bootstrap import bootstrap_mean
from audit.stats.correction import Corrected, GraderError, corrected
from audit.stats.floor import above_floor, arm, pooled_floor
from audit.stats.paired import paired
from audit.stats.power import limits
from audit.stats.rates import MISSING, Codes, Estimate, bounds, effective_sizes, wilson
from audit.stats.tokens import TokenCounts, any_of_k_curve, token_rate
from nla.support.seeds import seeded_generator
from tasks._info import Role

LOGPROB_LOSS = 1.0
"""A steered cell is degenerate if its responses are less likely than the base condition's by more than this (nats per token)."""
REPEATED = 0.3
"""A steered cell is degenerate if its share of repeated 4-grams exceeds the base condition's by more than this."""

NO_REASON = "the log gives no reason"
_MOST_REASONS, _LONGEST_REASON = 10, 160


def analyze(out: Path) -> AuditResult:
    """Analyse the logs of an audit's folder, and write `audit.json`, `transcripts.parquet` and `explanations.parquet` into it."""
    return analyze_folder(out).result


def analyze_folder(out: Path) -> StoredAudit:
    """`analyze`, returning the tables too.

    Raises:
        ConfigError: the folder is not that of an audit.
        DataError: no log is finished, the logs were measured in different ways, or the files cannot be written.
    """
    config = stored_config(out)
    transcripts, explanations, conversations = read_tables(out, [condition for condition in config.conditions() if condition.measured])
    scores = read_scores(out, [condition for condition in config.conditions() if not condition.measured])
    result = analyze_tables(transcripts, config, grader_error(config), read_controls_file(out), explanations, scores)
    missing = missing_cells(config, out)
    notes = [*result.notes, _missing_note(missing)] if missing else result.notes
    result = replace(result, training=training_points(config), missing=missing, notes=notes, sweep=read_sweep(out))
    return write_stored(StoredAudit(result, transcripts, explanations, conversations), out)


def _missing_note(missing: list[tuple[str, str]]) -> str:
    shown = ", ".join(f"{task} ({condition})" for condition, task in missing[:6])
    more = f" and {len(missing) - 6} more" if len(missing) > 6 else ""
    return f"Incomplete: {len(missing)} cells have no successful log: {shown}{more}. `audit run` with the same settings runs them."


def analyze_tables(
    transcripts: pd.DataFrame,
    config: AuditConfig,
    error: GraderError | None = None,
    instrument: InstrumentControls | None = None,
    explanations: pd.DataFrame | None = None,
    scores: pd.DataFrame | None = None,
) -> AuditResult:
    """Analyse the tables of transcripts and explanations.

    Args:
        transcripts: one row per transcript.
        config: the audit's config.
        error: the grader's measured errors, used to correct per-explanation rates.
        instrument: the instrument controls, if they were run.
        explanations: one row per explanation; None leaves out the results that need single explanations.
        scores: one row per transcript of the conditions without measures; None if there are none.
    """
    base = transcripts[transcripts.condition == BASE]
    cells = [_cell(table, base, error) for _, table in transcripts.groupby(["condition", "task"], sort=False)]
    controls = {str(task): _verdicts(table) for task, table in base[base.role == Role.DEPLOYMENT_CONTROL].groupby("task")}
    controls = {task: given for task, given in controls.items() if (given[0] != MISSING).any()}
    benchmarks = {str(task): arm(*_verdicts(table)) for task, table in base[base.role != Role.DEPLOYMENT_CONTROL].groupby("task")}
    unscored = _unscored(rows_with(transcripts, "nla"))
    floor = pooled_floor(controls, seeded_generator("floor", config.seed)) if controls else None
    n_controls = floor.pooled.n if floor else None
    comparison = compare_measures(transcripts, config.seed)
    return AuditResult(
        schema_version=SCHEMA_VERSION,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        identity={name: " ".join(identity_values(rows_read(transcripts), name)) for name in IDENTITY}
        | ({STEER_UNIT: unit} if (unit := steering_unit(transcripts)) else {}),
        config=config.model_dump(mode="json"),
        cells=cells,
        floor=FloorResult(floor.pooled.rate, {name: control.rate for name, control in floor.by_control.items()}, floor.heterogeneity.p)
        if floor
        else None,
        excess=above_floor(benchmarks, floor) if floor and benchmarks else {},
        limits={
            task: limits(floor.pooled.rate.estimate or 0.0, rate.n, n_controls) for task, rate in benchmarks.items() if floor and rate.n
        },
        positive_controls=[stated for _, table in transcripts.groupby("task") if (stated := _positive(table)) is not None],
        steering=steering_effects(transcripts),
        rewrites=(effects := rewrite_effects(transcripts)),
        rewrite_signs=signs(effects),
        grader_error=error,
        controls=instrument,
        places=place_rates(transcripts, explanations) if explanations is not None and len(explanations) else [],
        quality=reconstruction_quality(transcripts, explanations) if explanations is not None and len(explanations) else [],
        grader_quality=_grader_quality(error),
        notes=_notes(transcripts, bool(controls), unscored),
        unscored=unscored,
        measures=comparison.measures,
        measures_by_condition=comparison.by_condition,
        consistency=comparison.consistency,
        assay_sensitivity=with_known_groups(comparison.assay_sensitivity, check_of(config, transcripts)),
        score_change=score_changes(transcripts, scores, config, _degenerate),
    )


def _grader_quality(error: GraderError | None) -> dict[str, Estimate]:
    if error is None:
        return {}
    rejected = error.n_other - error.false_alarms
    return {"sensitivity": wilson(error.hits, error.n_yes), "specificity": wilson(rejected, error.n_other)}


def _verdicts(table: pd.DataFrame) -> tuple[Codes, Codes | None]:
    return codes_of(table.internal), sample_codes(table)


def _cell(table: pd.DataFrame, base: pd.DataFrame, error: GraderError | None) -> Cell:
    first = table.iloc[0]
    clusters = sample_codes(table)
    counts = _counts(table)
    with_nla, with_words = rows_with(table, "nla"), rows_with(table, "verbalized")
    with_both = with_nla[with_nla.index.isin(with_words.index)]
    likelihood, repeated, cut = (_mean(table, name, clusters) for name in ("mean_logprob", "repeated_4", "truncated"))
    return Cell(
        task=str(first.task),
        role=str(first.role),
        condition=str(first.condition),
        direction=str(first.direction),
        strength=float(first.strength),
        n=len(table),
        internal=bounds(*_verdicts(with_nla)),
        verbalized=bounds(codes_of(with_words.verbalized), sample_codes(with_words)),
        token_rate=token_rate(counts, clusters),
        token_rate_corrected=_corrected(counts, clusters, error),
        unclear=int(table.n_unclear.sum()),
        mean_k=float(table.k.mean()) if table.k.notna().any() else None,
        curve=any_of_k_curve(counts, clusters),
        internal_and_verbalized=paired(codes_of(with_both.internal), codes_of(with_both.verbalized), sample_codes(with_both)),
        own_score=_mean(table, "own_score", clusters),
        mean_logprob=likelihood,
        repeated_4=repeated,
        truncated=cut,
        degenerate=_degenerate(table, base[base.task == first.task]),
    )


def _counts(table: pd.DataFrame) -> TokenCounts:
    yes, no, unclear, unscored = (table[name].fillna(0).to_numpy(np.int64) for name in ("n_yes", "n_no", "n_unclear", "n_unscored"))
    return TokenCounts(yes, yes + no + unclear, unscored)


def _corrected(counts: TokenCounts, clusters: Codes | None, error: GraderError | None) -> Corrected | None:
    """The token rate corrected for the grader's errors; the effective number of explanations follows from the variance of the rate."""
    shares = counts.yes / np.where(counts.scored, counts.scored, 1)
    kept = counts.scored > 0
    if error is None or not kept.any():
        return None
    samples = clusters[kept] if clusters is not None else None
    size = float(effective_sizes(shares[kept][:, None], samples, judgements=int(counts.scored.sum()))[0])
    return corrected(float(shares[kept].mean()), size, error, seeded_generator("corrected", len(shares)))


def _mean(table: pd.DataFrame, column: str, clusters: Codes | None) -> Estimate:
    """Mean of a column that is not a rate, with a bootstrap interval over samples; NaN and infinite values count as unscored."""
    values = table[column].to_numpy(np.float64, na_value=np.nan)
    scored = np.isfinite(values)
    items = clusters[scored] if clusters is not None else None
    estimate = bootstrap_mean(values[scored], seeded_generator("mean", column, len(values)), items)
    return replace(estimate, n_unscored=int((~scored).sum()))


def _degenerate(table: pd.DataFrame, base: pd.DataFrame) -> str:
    """Why a steered cell's responses are degenerate, judging by the items it shares with the base condition; empty if they are not."""
    both = table.merge(base, on=["sample_id", "epoch"], suffixes=("", "_base"))
    if not len(both) or not table.direction.iloc[0]:  # another prompt changes what the model says without making it incoherent
        return ""
    loss = float((both.mean_logprob_base - both.mean_logprob).astype(float).mean())
    more = float((both.repeated_4 - both.repeated_4_base).astype(float).mean())
    reasons = []
    if loss > LOGPROB_LOSS:
        reasons.append(f"{loss:.1f} nats per token less likely than unsteered responses (bound {LOGPROB_LOSS})")
    if more > REPEATED:
        reasons.append(f"{more:.0%} more repeated 4-grams (bound {REPEATED:.0%})")
    return "; ".join(reasons)


def _positive(table: pd.DataFrame) -> PositiveControl | None:
    both = table[table.condition == BASE].merge(table[table.condition == POSITIVE], on=["sample_id", "epoch"], suffixes=("", "_stated"))
    if not len(both):
        return None
    return PositiveControl(str(table.task.iloc[0]), paired(codes_of(both.internal), codes_of(both.internal_stated), sample_codes(both)))


def _unscored(transcripts: pd.DataFrame) -> dict[str, int]:
    """Number of transcripts without an internal verdict, by reason, the most frequent first."""
    missing = transcripts[transcripts.internal.isna()]
    reasons = missing.unscored_reason.fillna("") if "unscored_reason" in missing else pd.Series("", index=missing.index)
    counts = reasons.map(lambda reason: str(reason)[:_LONGEST_REASON] or NO_REASON).value_counts()
    common = {str(reason): int(count) for reason, count in counts.head(_MOST_REASONS).items()}
    rest = int(counts.iloc[_MOST_REASONS:].sum())
    return common | ({"other reasons": rest} if rest else {})


def _notes(transcripts: pd.DataFrame, has_control: bool, unscored: dict[str, int]) -> list[str]:
    if not len(rows_with(transcripts, "nla")):
        return ["The measure nla was not taken, so there are no internal rates, and no floor for them."]
    notes = ["Rates depend on this verbalizer and grader, and are not calibrated against any ground truth."]
    if not has_control:
        notes.append("No deployment control was run, so there is no measured floor that a benchmark could exceed.")
    if unscored:
        reasons = "; ".join(f"{reason} ({count})" for reason, count in unscored.items())
        notes.append(f"{sum(unscored.values())} of {len(transcripts)} transcripts have no internal verdict: {reasons}.")
    return notes
