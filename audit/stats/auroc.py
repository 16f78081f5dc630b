"""AUROC of two groups of scores, with its bootstrap interval."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from audit.stats.rates import ALPHA, Floats
from nla.support.seeds import seeded_generator

_DRAWS = 2_000


@dataclass(frozen=True)
class Auroc:
    """How well a score tells a task's transcripts from the deployment controls' (0.5 is chance), with its bootstrap interval."""

    estimate: float
    low: float
    high: float
    n: int
    n_controls: int


def auroc(positive: Floats, negative: Floats) -> float:
    """Chance that a random positive has a higher score than a random negative; ties count half."""
    ranks = rankdata(np.concatenate([positive, negative]))
    n, m = len(positive), len(negative)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def auroc_interval(positive: Floats, negative: Floats, key: tuple[object, ...]) -> Auroc:
    """AUROC of two groups' scores, with the percentile interval of resampled groups."""
    draws = seeded_generator("auroc", *key)
    drawn = [auroc(draws.choice(positive, len(positive)), draws.choice(negative, len(negative))) for _ in range(_DRAWS)]
    low, high = np.percentile(drawn, [50 * ALPHA, 100 - 50 * ALPHA])
    return Auroc(auroc(positive, negative), float(low), float(high), len(positive), len(negative))
