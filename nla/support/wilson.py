"""Wilson's interval for a share. A training machine has no statsmodels, which the audit's statistics need; hence the few lines here."""

import math
from statistics import NormalDist

_TAIL = 0.025
"""Probability left out on either side of the interval."""


def wilson_interval(hits: int, n: int) -> tuple[float, float]:
    """Return Wilson's score interval of the share hits / n."""
    z = NormalDist().inv_cdf(1 - _TAIL)
    share = hits / n
    centre = share + z * z / (2 * n)
    reach = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (centre - reach) / scale), min(1.0, (centre + reach) / scale)
