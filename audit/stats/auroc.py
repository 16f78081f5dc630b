"""AUROC of two groups of transcripts, and differences between two AUROCs, with bootstrap intervals over items.

An item (sample) is drawn with all of its transcripts. The AUROC itself is that of `nla.organisms.statistics`.
"""

from dataclasses import dataclass, replace

import numpy as np

from audit.stats.bootstrap import DRAWS, cluster_weights, percentile_interval, resampled_estimate, undefined
from audit.stats.rates import Codes, Estimate, Floats
from nla.organisms.statistics import auroc, resampled_aurocs

CONSTANT = "all transcripts have the same score, so resampling gives no interval"
"""The reason why the AUROC of constant scores, which is one half, has no interval."""


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


@dataclass(frozen=True, eq=False)
class Group:
    """Transcripts of one group: scores without NaN, shape (transcript,) or (transcript, measure), and the code of each one's item."""

    scores: Floats
    items: Codes

    @property
    def n_items(self) -> int:
        """Number of different items."""
        return len(np.unique(self.items))

    def weights(self, key: tuple[object, ...], draws: int = DRAWS) -> Floats:
        """How often each transcript is drawn when items are resampled, shape (transcript, draw)."""
        weights = cluster_weights(self.n_items, key, draws)
        return weights if len(weights) == len(self.items) else weights[np.unique(self.items, return_inverse=True)[1]]


def auroc_interval(positive: Floats, negative: Floats, key: tuple[object, ...]) -> Auroc:
    """Return the AUROC with an interval from resampling both groups; `key` seeds the draws. Neither group may be empty."""
    first, second = (Group(scores, np.arange(len(scores))) for scores in (positive, negative))
    draws = resampled_aurocs(positive, negative, first.weights(("auroc", *key, 0)), second.weights(("auroc", *key, 1)))
    ends = percentile_interval(draws, min(len(positive), len(negative)))
    return Auroc(auroc(positive, negative), *ends, len(positive), len(negative))


def roc_points(positive: Floats, negative: Floats, most: int = 60) -> list[tuple[float, float]]:
    """Return the corners of a ROC curve as (share of the negative group above a score, share of the positive group above it).

    Args:
        positive: scores of the group that should score higher, without NaN.
        negative: scores of the other group.
        most: points to keep; of a longer curve, evenly spaced ones are kept, so that its area may differ a little from the AUROC.

    Returns:
        Points from (0, 0) to (1, 1), both axes rising; empty if a group is empty.
    """
    from sklearn.metrics import roc_curve  # slow to import

    if not len(positive) or not len(negative):
        return []
    labels = np.concatenate([np.ones(len(positive)), np.zeros(len(negative))])
    false_rate, true_rate, _ = roc_curve(labels, np.concatenate([positive, negative]))
    kept = np.unique(np.linspace(0, len(false_rate) - 1, min(most, len(false_rate))).round().astype(int))
    return [(round(float(false_rate[i]), 4), round(float(true_rate[i]), 4)) for i in kept]


def auroc_of_groups(positive: Group, negative: Group, draws: int = DRAWS) -> Estimate:
    """Return the AUROC of two groups of different items, which are resampled independently; undefined if a group is empty."""
    return _estimate(positive, negative, draws, paired=False)


def auroc_of_pairs(cued: Group, others: Group) -> Estimate:
    """Return the AUROC of the same items under two conditions. An item is drawn with its transcripts of both; `n` counts pairs.

    Row i of both groups is a pair, and the items are those of `cued`. All pairs of a cued and another transcript are compared, as in the
    known-groups test (`nla.organisms`), so the result is that of two groups, and only the interval uses the pairing.
    """
    return _estimate(cued, others, DRAWS, paired=True)


def _estimate(positive: Group, negative: Group, draws: int, *, paired: bool) -> Estimate:
    n, m = len(positive.scores), len(negative.scores)
    if not n or not m:
        return undefined(n, "nothing was scored in one of the groups")
    if len(np.unique(np.concatenate([positive.scores, negative.scores]))) == 1:
        return Estimate(0.5, None, None, n, "bootstrap over items", reason=CONSTANT)
    resampled = resampled_aurocs(positive.scores, negative.scores, *_weights(positive, negative, paired, draws))
    estimate = resampled_estimate(auroc(positive.scores, negative.scores), resampled, _fewest(positive, negative, paired))
    return replace(estimate, n=n)


def _weights(positive: Group, negative: Group, paired: bool, draws: int = DRAWS) -> tuple[Floats, Floats]:
    first = positive.weights(("positive",), draws)
    return first, first if paired else negative.weights(("negative",), draws)


def _fewest(positive: Group, negative: Group, paired: bool) -> int:
    return positive.n_items if paired else min(positive.n_items, negative.n_items)


def auroc_difference(positive: Group, negative: Group) -> Estimate:
    """Return the AUROC of the first measure minus that of the second, on the same transcripts.

    Args:
        positive: the group expected to score higher, with scores of both measures, shape (transcript, 2).
        negative: the other group, in the same form.
    """
    n = len(positive.scores)
    if not n or not len(negative.scores):
        return undefined(n, "no transcript was scored by both measures in one of the groups")
    weights = _weights(positive, negative, paired=False)
    columns = [(positive.scores[:, i], negative.scores[:, i]) for i in (0, 1)]
    first, second = (resampled_aurocs(*column, *weights) for column in columns)
    estimate = resampled_estimate(auroc(*columns[0]) - auroc(*columns[1]), first - second, _fewest(positive, negative, paired=False))
    return replace(estimate, n=n)
