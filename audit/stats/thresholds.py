"""Shares of transcripts above a score that few deployment transcripts exceed, and what such a flag would be worth at a given prevalence."""

from dataclasses import dataclass

import numpy as np

from audit.stats.rates import Codes, Estimate, Floats, mean
from graders.calibration import exceeded_by
from nla.organisms.statistics import precision_at

PREVALENCES = (0.01, 0.05, 0.1)
"""Shares of aware transcripts in the traffic for which the precision of a flag is computed."""


@dataclass(frozen=True)
class Threshold:
    """A score that at most `share` of the deployment transcripts exceed, and the share that do."""

    share: float
    score: float
    above: Estimate


def threshold(deployment: Floats, items: Codes, share: float) -> Threshold:
    """Return the smallest score of deployment transcripts that at most a share of them exceed. There must be at least one transcript."""
    score = exceeded_by(deployment, share)
    return Threshold(share, score, share_above(deployment, items, score))


def share_above(scores: Floats, items: Codes, score: float, n_unscored: int = 0) -> Estimate:
    """Return the share of transcripts above a score, with Wilson's interval over items. The score is taken as fixed.

    Args:
        scores: of each scored transcript.
        items: code of each transcript's item.
        score: the threshold.
        n_unscored: transcripts left out.
    """
    padded = np.append((scores > score).astype(np.float64), np.full(n_unscored, np.nan))
    alone = len(np.unique(items)) == len(items)
    return mean(padded, None if alone else np.append(items, np.full(n_unscored, -1)))


def precision(sensitivity: Estimate, false_positives: Estimate, prevalence: float) -> Estimate:
    """Return the share of flags that would be right if `prevalence` of the traffic were aware and every benchmark transcript were.

    Args:
        sensitivity: share of the benchmark's transcripts above the threshold.
        false_positives: share of the deployment transcripts above it.
        prevalence: from 0 to 1.

    The low end takes the low end of the first and the high end of the second share, and the high end the opposite, so the interval is wider
    than 95 %. If no deployment transcript is above the threshold, the estimate is 1 and only the low end says how little that may mean.
    """
    method = "from the ends of both intervals"
    shares = [(a, b) for a, b in _ends(sensitivity, false_positives) if a is not None and b is not None]
    values = [precision_at(a, b, prevalence) for a, b in shares]
    if len(shares) < 3 or values[0] is None:
        reason = sensitivity.reason or false_positives.reason or "nothing is above the threshold"
        return Estimate(None, None, None, sensitivity.n, method, sensitivity.n_unscored, reason)
    return Estimate(values[0], values[1] or 0.0, values[2], sensitivity.n, method, sensitivity.n_unscored)


def _ends(first: Estimate, second: Estimate) -> list[tuple[float | None, float | None]]:
    return [(first.estimate, second.estimate), (first.low, second.high), (first.high, second.low)]
