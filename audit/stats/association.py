"""Association of a measure with another number of the same items, such as their own score."""

from dataclasses import dataclass, replace

import numpy as np

from audit.stats.bootstrap import DRAWS
from audit.stats.correlation import Kind, correlation
from audit.stats.rates import Codes, Estimate, Floats


@dataclass(frozen=True)
class Association:
    """Correlation of two numbers over items; for a score of 0 and 1, Pearson's is the point-biserial correlation."""

    pearson: Estimate
    spearman: Estimate


def association(first: Floats, second: Floats, items: Codes | None = None, *, draws: int = DRAWS) -> Association:
    """Return the correlations of two columns over items. Values of one item (several epochs) are averaged first.

    Args:
        first, second: the numbers of each transcript, shape (transcript,); a transcript with NaN in either is left out and counted.
        items: code of each transcript's item; None if every transcript is an item of its own.
        draws: number of bootstrap resamples.
    """
    kept = np.isfinite(first) & np.isfinite(second)
    groups = np.arange(int(kept.sum())) if items is None else np.unique(items[kept], return_inverse=True)[1]
    sizes = np.maximum(np.bincount(groups), 1)
    x, y = (np.bincount(groups, weights=column[kept]) / sizes for column in (first, second))

    def estimate(kind: Kind) -> Estimate:
        return replace(correlation(x, y, np.arange(len(x)), kind, draws=draws), n_unscored=int((~kept).sum()))

    return Association(estimate("pearson"), estimate("spearman"))
