"""AUROC of two groups of scores, with its bootstrap interval."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from audit.stats.bootstrap import percentile_interval, resampled_groups
from audit.stats.rates import Floats
from nla.support.seeds import seeded_generator


@dataclass(frozen=True)
class Auroc:
    """How well a score separates two groups of transcripts (0.5 is chance), with its 95 % percentile bootstrap interval."""

    estimate: float
    low: float
    high: float
    n: int
    """Transcripts of the group expected to score higher."""
    n_controls: int
    """Transcripts of the group it is compared with."""


def auroc(positive: Floats, negative: Floats) -> float:
    """Return the probability that a random member of `positive` scores higher than one of `negative`; a tie counts as one half."""
    ranks = rankdata(np.concatenate([positive, negative]))
    n, m = len(positive), len(negative)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def auroc_interval(positive: Floats, negative: Floats, key: tuple[object, ...]) -> Auroc:
    """Return the AUROC with a percentile interval from resampling both groups; `key` seeds the draws. Neither group may be empty."""
    draws = resampled_groups(auroc, positive, negative, seeded_generator("auroc", *key))
    return Auroc(auroc(positive, negative), *percentile_interval(draws), len(positive), len(negative))
