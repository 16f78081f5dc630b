"""What steering does to one task's internal rate: each strength against none, the trend, and controls of the same norm.

The controls are random directions, and unrelated contrasts where the measures were taken under them too.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from audit.analysis.result import ProjectedReading, Steering, StrengthEffect
from audit.analysis.samples import sample_codes, sample_numbers
from audit.analysis.tables import codes_of
from audit.config import BASE, is_control_direction
from audit.stats.paired import paired
from audit.stats.steering import against_random, by_strength, trend


def steering_effects(transcripts: pd.DataFrame) -> list[Steering]:
    """Effects of steering for every task that was run both steered and unsteered."""
    return [steering for _, table in transcripts.groupby("task") if (steering := _steering(table)) is not None]


def _steering(table: pd.DataFrame) -> Steering | None:
    base, steered = table[table.condition == BASE], table[table.direction != ""]
    if not len(steered) or not len(base):
        return None
    directions = list(dict.fromkeys(steered.direction))
    real = [name for name in directions if not is_control_direction(name)]
    effects = [effect for name in real for effect in _effects(base, steered, name)]
    random_effects = [effect for name in directions if is_control_direction(name) for effect in _effects(base, steered, name)]
    strengths = sorted({effect.strength for effect in effects})
    pooled = pd.concat([base, steered[steered.direction.isin(real)]])
    over_strengths = trend(codes_of(pooled.internal), pooled.strength.to_numpy(float), sample_numbers(pooled)) if real else None
    p, reachable = _against_random(effects, random_effects, strengths)
    return Steering(
        task=str(table.task.iloc[0]),
        effects=effects,
        random_effects=random_effects,
        strengths=strengths,
        trend_p=over_strengths.within_items.p if over_strengths else None,
        trend_reason=over_strengths.within_items.reason if over_strengths else "",
        slope=over_strengths.slope if over_strengths else None,
        random_p=p,
        random_p_reachable=reachable,
        projected=_projected(steered[steered.direction.isin(real)]),
    )


def _projected(steered: pd.DataFrame) -> list[ProjectedReading]:
    """Every strength, read with the steering direction in the vectors and without it, on the same transcripts."""
    readings = []
    for _, table in steered.groupby(["direction", "strength"]):
        if table.internal_projected.notna().any():
            pairs = paired(codes_of(table.internal), codes_of(table.internal_projected), sample_codes(table))
            readings.append(ProjectedReading(str(table.direction.iloc[0]), float(table.strength.iloc[0]), pairs))
    return readings


def _effects(base: pd.DataFrame, steered: pd.DataFrame, direction: str) -> list[StrengthEffect]:
    table = pd.concat([base, steered[steered.direction == direction]])
    strengths, epochs = table.strength.to_numpy(float), table.epoch.to_numpy(np.int64)
    tests = by_strength(codes_of(table.internal), strengths, sample_numbers(table), epochs)
    return [StrengthEffect(direction, strength, pairs) for strength, pairs in sorted(tests.items())]


def _against_random(
    effects: Sequence[StrengthEffect], random_effects: Sequence[StrengthEffect], strengths: list[float]
) -> tuple[list[float], float | None]:
    """One p value per strength against the control directions, and the smallest p value possible.

    A positive strength is predicted to raise the rate, a negative one to lower it. Directions that lack a strength are left out.
    """

    def signed(effect: StrengthEffect) -> float:
        change = (effect.pairs.only_second - effect.pairs.only_first) / max(effect.pairs.n, 1)
        return change if effect.strength > 0 else -change

    names = sorted({effect.direction for effect in random_effects})
    by_name = {name: {e.strength: signed(e) for e in random_effects if e.direction == name} for name in names}
    complete = [name for name in names if all(strength in by_name[name] for strength in strengths)]
    measured = {effect.strength: signed(effect) for effect in effects}
    if not complete or not strengths:
        return [], None
    ranked = against_random(
        np.array([measured[s] for s in strengths]), np.array([[by_name[name][s] for s in strengths] for name in complete])
    )
    return [float(p) for p in ranked.p], ranked.reachable
