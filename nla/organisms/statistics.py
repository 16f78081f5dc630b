"""AUROC and its resampling, and the statistics of the known-groups test: paired transcripts, with intervals over prompts.

`audit.stats.auroc` lies above `nla` and takes its AUROC from here, because a training machine has neither statsmodels nor scikit-learn.
The tests compare these functions with scikit-learn.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nla.support.seeds import seeded_generator

_DRAWS = 2_000
"""Bootstrap draws."""
_TAIL = 0.025
"""Probability left out on either side of an interval."""


@dataclass(frozen=True)
class Estimate:
    """An estimate with its 95 % interval and the number of prompts (or transcripts) it rests on."""

    estimate: float
    low: float
    high: float
    n: int


def auroc(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> float:
    """Return the probability that a random member of `positive` scores higher than one of `negative`; a tie counts as one half."""
    return float(resampled_aurocs(positive, negative, np.ones((len(positive), 1)), np.ones((len(negative), 1)))[0])


def resampled_aurocs(
    positive: NDArray[np.float64],
    negative: NDArray[np.float64],
    positive_weights: NDArray[np.float64],
    negative_weights: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the AUROC in each resample, shape (draw,); NaN where one of the groups was not drawn.

    Args:
        positive: scores of the group expected to score higher, shape (n,), without NaN.
        negative: scores of the other group, shape (m,), without NaN.
        positive_weights: how often each member of `positive` was drawn, shape (n, draw).
        negative_weights: the same for `negative`, shape (m, draw).
    """
    order = np.argsort(negative, kind="stable")
    drawn_below = np.concatenate([np.zeros((1, negative_weights.shape[1])), cumulated(negative_weights[order])])
    wins = np.zeros(negative_weights.shape[1])
    for side in ("left", "right"):  # once without the ties, once with them: each counts one half
        wins += np.einsum("id,id->d", positive_weights, drawn_below[np.searchsorted(negative[order], positive, side=side)]) / 2
    n_pairs = positive_weights.sum(axis=0) * drawn_below[-1]
    estimates: NDArray[np.float64] = np.divide(wins, n_pairs, out=np.full(len(wins), np.nan), where=n_pairs > 0)
    return estimates


def cumulated(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return sums of rows up to each one, as `np.cumsum(rows, axis=0)` does in four times the time."""
    sums = rows.copy()
    for i in range(1, len(sums)):
        np.add(sums[i], sums[i - 1], out=sums[i])
    return sums


def paired_auroc(cued: Sequence[float], others: Sequence[float]) -> float:
    """Return the share of pairs (one score of each group) in which the cued one is higher; ties count one half."""
    return auroc(np.asarray(cued, dtype=float), np.asarray(others, dtype=float))


def auroc_over_prompts(cued: Sequence[float], others: Sequence[float], prompts: Sequence[str]) -> Estimate:
    """Return the AUROC of paired transcripts with a percentile bootstrap over prompts, widened to hold the estimate.

    A resample compares more transcripts with their own partners than the data do (2 in n instead of 1 in n), so where partners differ
    in another way than other pairs, and there are few prompts, all resamples may lie on one side of the estimate.

    Args:
        cued: scores under the cue, one per pair.
        others: scores of the same pairs without the cue.
        prompts: the prompt of each pair. A prompt is drawn with all of its pairs, on both sides.
    """
    n, index, drawn = _redrawn("known groups", prompts)
    weights = drawn[index]
    draws = resampled_aurocs(np.asarray(cued, dtype=float), np.asarray(others, dtype=float), weights, weights)
    low, high = np.quantile(draws, [_TAIL, 1 - _TAIL])
    estimate = paired_auroc(cued, others)
    return Estimate(estimate, min(float(low), estimate), max(float(high), estimate), n)


def auroc_over_documents(
    positive: Sequence[float], negative: Sequence[float], positive_documents: Sequence[str], negative_documents: Sequence[str]
) -> Estimate:
    """Return the AUROC of two groups with a percentile bootstrap over documents.

    Args:
        positive: scores of the group expected to score higher.
        negative: scores of the other group.
        positive_documents: the document of each score; a document is drawn with all of its scores, on both sides.
        negative_documents: the same for `negative`.
    """
    n, index, weights = _redrawn("auroc over documents", [*positive_documents, *negative_documents])
    sides = np.asarray(positive, dtype=float), np.asarray(negative, dtype=float)
    draws = resampled_aurocs(*sides, weights[index[: len(positive)]], weights[index[len(positive) :]])
    low, high = np.nanquantile(draws, [_TAIL, 1 - _TAIL])
    return Estimate(auroc(*sides), float(low), float(high), n)


def mean_over_documents(values: Sequence[float], documents: Sequence[str]) -> Estimate:
    """Return the mean of values with a percentile bootstrap over documents; a document is drawn with all of its values.

    Args:
        values: one per item.
        documents: the document of each item.
    """
    n, index, drawn = _redrawn("mean over documents", documents)
    sums = np.bincount(index, weights=np.asarray(values, dtype=float))
    counts = np.bincount(index)
    low, high = np.quantile(sums @ drawn / (counts @ drawn), [_TAIL, 1 - _TAIL])
    return Estimate(float(sums.sum() / counts.sum()), float(low), float(high), n)


def _redrawn(purpose: str, owners: Sequence[str]) -> tuple[int, NDArray[np.int64], NDArray[np.float64]]:
    """Draw owners of items (prompts, documents) again with replacement.

    Returns:
        The number of owners, the owner of each item as a number, and how often each owner was drawn, shape (owner, draw).
    """
    names, index = np.unique(np.asarray(owners), return_inverse=True)
    rng = seeded_generator(purpose, len(index), len(names))
    return len(names), index, rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=_DRAWS).astype(float).T


def precision_at(sensitivity: float, false_positive_rate: float, prevalence: float) -> float | None:
    """Return the share of flags that are right where `prevalence` of all transcripts have the state; None where nothing is flagged."""
    right, wrong = sensitivity * prevalence, false_positive_rate * (1 - prevalence)
    return right / (right + wrong) if right + wrong > 0 else None
