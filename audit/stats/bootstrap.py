"""Percentile bootstrap: resampling with replacement, and the interval taken from the resampled statistics.

Every bootstrap of `audit` takes its interval from `percentile_interval`. Generators come from `nla.support.seeds.seeded_generator`, so the
same data give the same interval in every run.
"""

from functools import lru_cache

import numpy as np
from scipy.stats import norm, t

from audit.stats.rates import ALPHA, Codes, Estimate, Floats
from nla.support.seeds import seeded_generator

DRAWS = 2_000
"""Default number of bootstrap resamples."""
_UNDEFINED = 0.05
"""If a statistic is undefined in more than this share of the resamples, there is no interval."""


def percentile_interval(draws: Floats, n: int | None = None) -> tuple[float, float]:
    """Return the ends of the 95 % percentile interval of resampled statistics, which have shape (draws,).

    With `n`, the number of resampled items (of the smaller group), the interval is wider, as for a mean with Student's t and an unbiased
    variance: the expanded percentile interval of Hesterberg (2015, The American Statistician 69:371). The plain interval is too short: at
    n = 50 it covers a Pearson correlation of .5 in 92.3 % of 1,500 simulations, this one in 93.5 %; an AUROC of .7 in 94.2 and 95.4 %.
    """
    tail = ALPHA / 2 if n is None or n < 3 else float(norm.cdf(t.ppf(ALPHA / 2, n - 1) * (n / (n - 1)) ** 0.5))
    low, high = np.percentile(draws, [100 * tail, 100 - 100 * tail])
    return float(low), float(high)


def undefined(n: int, reason: str) -> Estimate:
    """Return the estimate of a statistic of n transcripts that is undefined for a reason."""
    return Estimate(None, None, None, n, "bootstrap over items", reason=reason)


def resampled_estimate(estimate: float, draws: Floats, n: int, n_unscored: int = 0) -> Estimate:
    """Return an estimate with the expanded percentile interval of its resamples over n items, widened to hold the estimate.

    All resamples may lie on one side of it: those of pairs compare more transcripts with their own partners than the data do (see
    `nla.organisms.statistics.auroc_over_prompts`). Resamples in which the statistic is undefined (NaN) are left out; with more than 5 %
    of them there is no interval, only the reason.
    """
    method = f"bootstrap over items, {len(draws):,} draws"
    defined = draws[np.isfinite(draws)]
    if len(defined) < (1 - _UNDEFINED) * len(draws):
        reason = f"the statistic is undefined in {1 - len(defined) / len(draws):.0%} of the resamples, so there is no interval"
        return Estimate(estimate, None, None, n, method, n_unscored, reason)
    low, high = percentile_interval(defined, n)
    return Estimate(estimate, min(low, estimate), max(high, estimate), n, method, n_unscored)


@lru_cache(maxsize=8)
def cluster_weights(n: int, key: tuple[object, ...], draws: int = DRAWS) -> Floats:
    """Return how often each of n items is drawn in each resample of n items with replacement, shape (n, draws); read-only.

    Statistics with the same key and number of items share their resamples.
    """
    picks = seeded_generator("resampled items", *key, n).integers(0, n, size=(draws, n))
    cells = picks * draws + np.arange(draws)[:, None]
    weights = np.bincount(cells.ravel(), minlength=n * draws).reshape(n, draws).astype(np.float64)
    weights.flags.writeable = False
    return weights


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
