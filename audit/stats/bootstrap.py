"""Percentile bootstrap: resampling with replacement, and the interval taken from the resampled statistics.

Every bootstrap of `audit` takes its interval from `percentile_interval`. Generators come from `nla.support.seeds.seeded_generator`, so the
same data give the same interval in every run.
"""

from collections.abc import Callable

import numpy as np

from audit.stats.rates import ALPHA, Codes, Estimate, Floats

DRAWS = 2_000
"""Default number of bootstrap resamples."""


def percentile_interval(draws: Floats) -> tuple[float, float]:
    """Return the ends of the 95 % percentile interval of resampled statistics, which have shape (draws,)."""
    low, high = np.percentile(draws, [50 * ALPHA, 100 - 50 * ALPHA])
    return float(low), float(high)


def resampled_groups(
    statistic: Callable[[Floats, Floats], float], first: Floats, second: Floats, rng: np.random.Generator, *, draws: int = DRAWS
) -> Floats:
    """Return a statistic of two independent groups of scores, computed on `draws` resamples of both; shape (draws,)."""
    return np.array([statistic(rng.choice(first, len(first)), rng.choice(second, len(second))) for _ in range(draws)])


def bootstrap_mean(values: Floats, rng: np.random.Generator, items: Codes | None = None, *, draws: int = DRAWS) -> Estimate:
    """Return the mean of a value over items, with a percentile interval from resampling the items.

    Args:
        values: one value per transcript (or pair), without NaN.
        rng: draws the resamples.
        items: code of the item that each value comes from; None if each value is an item of its own. Values of one item are averaged first.
        draws: number of resamples. Each is a multinomial draw over the distinct item means, which is the same as resampling items.
    """
    method = f"bootstrap over items, {draws:,} draws"
    if not len(values):
        return Estimate(None, None, None, 0, method, reason="nothing was scored")
    groups = np.arange(len(values)) if items is None else np.unique(items, return_inverse=True)[1]
    means = np.bincount(groups, weights=values) / np.bincount(groups)
    distinct, counts = np.unique(means, return_counts=True)
    if len(distinct) == 1:
        reason = "all items have the same value, so resampling gives no interval"
        return Estimate(float(distinct[0]), None, None, len(means), method, reason=reason)
    resampled = rng.multinomial(len(means), counts / len(means), size=draws) @ distinct / len(means)
    low, high = percentile_interval(resampled)
    return Estimate(float(means.mean()), low, high, len(means), method)
