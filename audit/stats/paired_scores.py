"""Tests of a benchmark's own score, which may be any number, on the same items under two conditions.

Pairs of one item (several seeds) are averaged first, so that the item is the independent unit. Where every item's difference is -1, 0 or 1,
the tests and intervals are those of `audit.stats.paired`; otherwise they are Student's, on the items' differences.
"""

import functools
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.stats import nct, t

from audit.stats.paired import bonett_price, mcnemar_exact
from audit.stats.power import POWER, one_sided_detectable, paired_detectable
from audit.stats.rates import ALPHA, Codes, Estimate, Floats


@dataclass(frozen=True)
class ScoreDifference:
    """Mean of first minus second over items."""

    difference: Estimate
    """With 95 % interval over items."""
    p: float | None
    """Two-sided; None where there are fewer than two items, or where all items differ by the same amount that is no whole number."""
    detectable: float | None
    """Smallest true difference that as many items with as much spread detect with 80 % power; None where that cannot be said."""


def paired_scores(first: Floats, second: Floats, items: Codes | None = None) -> ScoreDifference:
    """Return the mean difference of two rows of scores of the same items.

    Args:
        first, second: score of each pair under the two conditions, shape (pair,); a pair with NaN in either is left out and counted.
        items: code of each pair's item; None if every pair is an item of its own.
    """
    kept = np.isfinite(first) & np.isfinite(second)
    changes = first[kept] - second[kept]
    groups = np.arange(len(changes)) if items is None else np.unique(items[kept], return_inverse=True)[1]
    means = np.bincount(groups, weights=changes) / np.maximum(np.bincount(groups), 1) if len(changes) else changes
    lost, n = int((~kept).sum()), len(means)
    if n < 2:
        reason = "one item gives no interval" if n else "no item was scored under both conditions"
        return ScoreDifference(Estimate(float(means[0]) if n else None, None, None, n, "mean over items", lost, reason), None, None)
    if np.isin(means, (-1.0, 0.0, 1.0)).all():
        return _of_counts(means, lost)
    if np.ptp(means) <= 1e-12 * max(float(np.abs(means).max()), 1.0):
        reason = "all items differ by the same amount, so their spread gives no interval"
        return ScoreDifference(Estimate(float(means.mean()), None, None, n, "mean over items", lost, reason), None, None)
    return _of_numbers(means, lost)


def _of_counts(means: Floats, lost: int) -> ScoreDifference:
    """The difference where each item gained, lost or kept one point."""
    test = mcnemar_exact(means < 0, means > 0)
    share = float((means != 0).mean())
    detectable = paired_detectable(len(means), share) if share else None
    return ScoreDifference(bonett_price(means, lost), test.p, one_sided_detectable(len(means)) if detectable is None else detectable)


def _of_numbers(means: Floats, lost: int) -> ScoreDifference:
    n, middle, error = len(means), float(means.mean()), float(means.std(ddof=1)) / len(means) ** 0.5
    half = float(t.ppf(1 - ALPHA / 2, n - 1)) * error
    estimate = Estimate(middle, middle - half, middle + half, n, "Student's t over items", lost)
    return ScoreDifference(estimate, float(2 * t.sf(abs(middle) / error, n - 1)), error * _detectable_shift(n))


@functools.lru_cache(maxsize=1_024)
def _detectable_shift(n: int) -> float:
    """Return the true mean, in standard errors, that the two-sided t test of n items detects with 80 % power.

    The chance of a significant result in the wrong direction, which is below 0.001 % there, is left out.
    """
    critical = float(t.ppf(1 - ALPHA / 2, n - 1))

    def missing(shift: float) -> float:
        return float(nct.sf(critical, n - 1, shift)) - POWER

    return float(brentq(missing, 0.1, 4 * critical + 10))
