"""Boschloo's exact test that one rate exceeds another, for single tables and for planning, where the whole rejection region is needed.

Both rates are estimated from samples, and the test allows for chance in both, so a floor measured on few deployment controls is hard to
exceed. Boschloo's test uses Fisher's p value as the statistic of an unconditional test: its error rate never exceeds its level, and it
has at least the power of Fisher's test. For 50 transcripts with a rate of 20 % and 100 deployment controls with 5 %, it detects the
difference in 84 % of runs, and Fisher's test in 81 %. If both rates are 5 %, it rejects in 2.9 % of runs: the level of 5 % is that at the
least favourable common rate.

scipy has the same test (`boschloo_exact`). This implementation also gives whole rejection regions and handles large tables, because it
stores a region as one critical count for each count of flagged controls, not as a table of all pairs. Unlike scipy, it maximises over
the common rate on a fixed grid.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.stats import binom, hypergeom

from audit.stats.rates import ALPHA, Codes

MOST_ITEMS = 4000
"""Largest total of both samples for Boschloo's test; above it, Fisher's test is used, which then loses little power."""
_RATES = np.sin(np.linspace(0, np.pi / 2, 402)[1:-1]) ** 2
"""Grid of common rates for `_size`, denser near 0 and 1."""


@dataclass(frozen=True)
class Region:
    """Rejection region: if x of the `n_controls` controls are flagged, the test rejects from `critical[x]` flagged of `n` upwards.

    A critical count of n + 1 means that the test never rejects.
    """

    n: int
    n_controls: int
    critical: Codes

    def power(self, rate: float, control_rate: float) -> float:
        """Return the probability that the test rejects, given the two true rates."""
        weights = binom.pmf(np.arange(self.n_controls + 1), self.n_controls, control_rate)
        return float(weights @ binom.sf(self.critical - 1, self.n, rate))


def exceeds(yes: int, n: int, control_yes: int, n_controls: int) -> tuple[float, str]:
    """Return the one-sided p value for a rate above that of the controls, and the name of the test."""
    fisher = float(hypergeom.sf(yes - 1, n + n_controls, yes + control_yes, n))
    if n + n_controls > MOST_ITEMS:
        return fisher, "Fisher exact, one-sided"
    critical = _critical(fisher, n, n_controls)
    return min(_size(critical, n, n_controls), 1.0), "Boschloo exact, one-sided"


@lru_cache(maxsize=256)
def region(n: int, n_controls: int, alpha: float = ALPHA) -> Region:
    """Return the largest rejection region of Boschloo's test at level alpha (of Fisher's test above `MOST_ITEMS`)."""
    low, high = alpha, min(8 * alpha, 1.0)  # a Fisher's p value of at most alpha always rejects
    best = _critical(low, n, n_controls)
    if n + n_controls > MOST_ITEMS:
        return Region(n, n_controls, best)
    while high - low > 1e-4 * alpha:
        middle = (low + high) / 2
        critical = _critical(middle, n, n_controls)
        if _size(critical, n, n_controls) <= alpha:
            low, best = middle, critical
        else:
            high = middle
    return Region(n, n_controls, best)


def _size(critical: Codes, n: int, n_controls: int) -> float:
    """Return the highest probability of rejecting when both rates are equal, over the grid of common rates."""
    controls = np.flatnonzero(critical <= n)
    if not len(controls):
        return 0.0
    weights = binom.pmf(controls[:, None], n_controls, _RATES)
    return float((weights * binom.sf(critical[controls, None] - 1, n, _RATES)).sum(axis=0).max())


def _critical(p_value: float, n: int, n_controls: int) -> Codes:
    """Return, for each count of flagged controls, the smallest flagged count of n at which Fisher's p value is at most `p_value`."""
    control_yes = np.arange(n_controls + 1)
    low, high = np.zeros(n_controls + 1, dtype=np.int64), np.full(n_controls + 1, n + 1, dtype=np.int64)
    while (open_ := low < high).any():
        middle = (low + high) // 2
        small = hypergeom.sf(middle - 1, n + n_controls, middle + control_yes, n) <= p_value * (1 + 1e-9)
        high, low = np.where(open_ & small, middle, high), np.where(open_ & ~small, middle + 1, low)
    return high
