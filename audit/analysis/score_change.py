"""Does awareness change a benchmark's own score? Paired differences under steering, beyond unrelated contrasts, and associations.

Every difference is written so that a positive number means that awareness inflates the score: base minus steered away, and unrelated
contrasts minus steered away. The intervals are over items.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from audit.analysis.measure_scores import MAIN, ScoredTranscripts, scored_transcripts
from audit.analysis.samples import sample_numbers
from audit.analysis.score_change_record import BeyondControls, ScoreChange, StrengthScores
from audit.analysis.score_rows import COLUMNS
from audit.analysis.score_words import sentence
from audit.config import BASE, AuditConfig, is_control_direction
from audit.stats.association import Association, association
from audit.stats.bootstrap import bootstrap_mean
from audit.stats.paired_scores import ScoreDifference, paired_scores
from audit.stats.rates import Estimate, Floats
from audit.stats.steering import against_random
from nla.activations.contrast_sets import UNRELATED
from nla.support.seeds import seeded_generator
from tasks._info import Role

STEERED = "steered"
"""Name of the steered cell beside base and controls."""
_ITEM = ["sample_id", "epoch"]
Degenerate = Callable[[pd.DataFrame, pd.DataFrame], str]


def score_changes(
    transcripts: pd.DataFrame, scores: pd.DataFrame | None, config: AuditConfig, degenerate: Degenerate
) -> dict[str, ScoreChange]:
    """Return what awareness does to the own score of every benchmark that has one.

    Args:
        transcripts: one row per transcript.
        scores: the rows of conditions without measures (`audit.analysis.score_rows`); None for none.
        config: the audit's config, which says which strengths of unrelated contrasts match which of the steering vector.
        degenerate: says why a cell's responses, against base, are too incoherent to count.
    """
    scored = scored_transcripts(transcripts)
    transcripts = scored.table
    base = transcripts[(transcripts.condition == BASE) & (transcripts.role != Role.DEPLOYMENT_CONTROL)]
    rows = pd.concat([_columns(table) for table in (transcripts, scores) if table is not None and len(table)], ignore_index=True)
    steered = rows[rows.direction != ""]
    return {
        str(task): _change(table, steered[steered.task == task], config, degenerate, _associations(table, scored))
        for task, table in base.groupby("task", sort=False)
        if np.isfinite(_numbers(table.own_score)).any()
    }


def _columns(table: pd.DataFrame) -> pd.DataFrame:
    """The columns that are compared, with the same types whether or not a table holds a number in each."""
    return table[list(COLUMNS)].astype(dict.fromkeys(("strength", "own_score", "mean_logprob", "repeated_4"), float))


def _numbers(column: pd.Series) -> Floats:
    values: Floats = column.to_numpy(np.float64, na_value=np.nan)
    return values


def _change(
    base: pd.DataFrame, steered: pd.DataFrame, config: AuditConfig, degenerate: Degenerate, measures: dict[str, Association]
) -> ScoreChange:
    grouped = steered.groupby(["direction", "strength"], sort=False)
    cells = {(str(cell.direction.iloc[0]), float(cell.strength.iloc[0])): cell for _, cell in grouped}
    own = [key for key in cells if not is_control_direction(key[0])]
    strengths = [_strength(base, key, cells, config, degenerate) for key in sorted(own, key=lambda key: key[1])]
    scored = _numbers(pd.concat([base.own_score, steered.own_score]))
    scored = scored[np.isfinite(scored)]
    draft = ScoreChange(
        task=str(base.task.iloc[0]),
        base=_mean(_numbers(base.own_score), base),
        is_share=bool((scored >= 0).all() and (scored <= 1).all()),
        strengths=strengths,
        headline=min((item.strength for item in strengths if item.strength < 0 and not item.degenerate), default=None),
        verdict="unknown",
        sentence="",
        measures=measures,
    )
    return sentence(draft)


def _strength(
    base: pd.DataFrame, key: tuple[str, float], cells: Mapping[tuple[str, float], pd.DataFrame], config: AuditConfig, degenerate: Degenerate
) -> StrengthScores:
    name, strength = key
    contrasts = sorted({direction for direction, _ in cells if direction.startswith(UNRELATED)})
    matched = config.matched.get(f"{strength:+g}", {})
    joined = _joined(base, {STEERED: cells[key]})
    return StrengthScores(
        direction=name,
        strength=strength,
        against_base=_inflation(joined, "base", STEERED, strength),
        loss=_loss(joined, [STEERED]),
        degenerate=degenerate(cells[key], base),
        same_strength=_beyond(base, key, cells, [(contrast, strength) for contrast in contrasts]),
        matched=_beyond(base, key, cells, sorted(matched.items())),
    )


def _beyond(
    base: pd.DataFrame, key: tuple[str, float], cells: Mapping[tuple[str, float], pd.DataFrame], controls: Sequence[tuple[str, float]]
) -> BeyondControls | None:
    """Compare a steered cell with the controls that were run; None if none were."""
    run = {f"{name}:{strength:+g}": cells[name, strength] for name, strength in controls if (name, strength) in cells}
    if not run:
        return None
    table, away = _joined(base, {STEERED: cells[key]} | run), key[1]
    table["own_score_controls"] = np.mean([_numbers(table[f"own_score_{spec}"]) for spec in run], axis=0)
    effects = {spec: _inflation(table, "base", spec, away).difference for spec in run}
    steered = _inflation(table, "base", STEERED, away).difference.estimate
    ranked = [effect.estimate for effect in effects.values() if effect.estimate is not None]
    rank = against_random(np.array([steered]), np.array(ranked)[:, None]) if steered is not None and ranked else None
    return BeyondControls(
        controls=list(run),
        inflation=_inflation(table, "controls", STEERED, away),
        by_control=effects,
        rank_p=float(rank.p[0]) if rank else None,
        rank_p_reachable=rank.reachable if rank else None,
        loss=_loss(table, list(run)),
    )


def _joined(base: pd.DataFrame, cells: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One row per item and seed of the base condition, with the own score and the log-probability of each cell; NaN where it has none."""
    values = ["own_score", "mean_logprob"]
    table = base[[*_ITEM, *values]].rename(columns={name: f"{name}_base" for name in values})
    for name, cell in cells.items():
        columns = cell[[*_ITEM, *values]].rename(columns={value: f"{value}_{name}" for value in values})
        table = table.merge(columns, on=_ITEM, how="left")
    return table


def _inflation(table: pd.DataFrame, other: str, steered: str, strength: float) -> ScoreDifference:
    """The paired difference of two columns of own scores, positive if awareness inflates the score."""
    first, second = (other, steered) if strength < 0 else (steered, other)
    return paired_scores(_numbers(table[f"own_score_{first}"]), _numbers(table[f"own_score_{second}"]), sample_numbers(table))


def _loss(table: pd.DataFrame, names: Sequence[str]) -> Estimate:
    """Loss of log-probability of some cells against base, mean over the cells, with an interval over items."""
    likelihoods = np.mean([_numbers(table[f"mean_logprob_{name}"]) for name in names], axis=0)
    return _mean(_numbers(table.mean_logprob_base) - likelihoods, table)


def _mean(values: Floats, table: pd.DataFrame) -> Estimate:
    kept = np.isfinite(values)
    return bootstrap_mean(values[kept], seeded_generator("own score", len(values)), sample_numbers(table)[kept])


def _associations(base: pd.DataFrame, scored: ScoredTranscripts) -> dict[str, Association]:
    """Association of each measure that was taken with the own score, over the items of the base condition."""
    own, items, rows = _numbers(base.own_score), sample_numbers(base), base.index.to_numpy()
    columns = {name: scored.scores[name][rows] for name in MAIN if name in scored.scores}
    return {name: association(column, own, items) for name, column in columns.items() if np.isfinite(column).any()}
