"""Association of two numbers that were measured on the same transcripts, with intervals from resampling items."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from audit.stats.bootstrap import DRAWS, percentile_interval
from audit.stats.rates import Codes, Estimate, Floats

_FEWEST = 3
"""Items below which a correlation says nothing."""


@dataclass(frozen=True)
class Association:
    """Correlation of two numbers over items; for a score of 0 and 1, Pearson's is the point-biserial correlation."""

    pearson: Estimate
    spearman: Estimate


def association(first: Floats, second: Floats, rng: np.random.Generator, items: Codes | None = None, *, draws: int = DRAWS) -> Association:
    """Return the correlations of two columns over items. Values of one item (several seeds) are averaged first.

    Args:
        first, second: the numbers of each transcript, shape (transcript,); a transcript with NaN in either is left out and counted.
        rng: draws the resamples.
        items: code of each transcript's item; None if every transcript is an item of its own.
        draws: number of bootstrap resamples; resamples in which a column is constant are left out of the interval.
    """
    kept = np.isfinite(first) & np.isfinite(second)
    groups = np.arange(int(kept.sum())) if items is None else np.unique(items[kept], return_inverse=True)[1]
    sizes = np.maximum(np.bincount(groups), 1)
    x, y = (np.bincount(groups, weights=column[kept]) / sizes for column in (first, second))
    lost, method = int((~kept).sum()), f"bootstrap over items, {draws:,} draws"
    reason = _why_undefined(x, y)
    if reason:
        nothing = Estimate(None, None, None, len(x), method, lost, reason)
        return Association(nothing, nothing)
    drawn = rng.integers(0, len(x), (draws, len(x)))
    columns = (x, y, x[drawn], y[drawn])
    ranks = [rankdata(column, axis=-1) for column in columns]
    return Association(_estimate(columns, method, lost), _estimate(ranks, method, lost))


def _why_undefined(x: Floats, y: Floats) -> str:
    if len(x) < _FEWEST:
        return f"{len(x)} items, and a correlation needs at least {_FEWEST}"
    return "all items have the same value, so there is no correlation" if np.ptp(x) == 0 or np.ptp(y) == 0 else ""


def _estimate(columns: Sequence[Floats], method: str, lost: int) -> Estimate:
    """The correlation of two columns, with the interval from their resamples, which follow them."""
    x, y, xs, ys = columns
    resampled = _pearson(xs, ys)
    defined = resampled[np.isfinite(resampled)]
    low, high = percentile_interval(defined) if len(defined) > len(resampled) / 2 else (None, None)
    reason = "" if low is not None else "most resamples have a constant column"
    return Estimate(float(_pearson(x, y)), low, high, len(x), method, lost, reason)


def _pearson(x: Floats, y: Floats) -> Floats:
    """Pearson's correlation along the last axis; NaN where a column is constant."""
    a, b = (column - column.mean(axis=-1, keepdims=True) for column in (x, y))
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation: Floats = np.clip((a * b).sum(-1) / np.sqrt((a**2).sum(-1) * (b**2).sum(-1)), -1, 1)
    return correlation
