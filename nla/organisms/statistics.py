"""Statistics of the known-groups test: AUROC for paired transcripts, with intervals over prompts.

`audit.stats` lies above `nla`, and a training machine has neither statsmodels nor scikit-learn, hence the few lines here. The tests
compare them with scikit-learn.
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


def paired_auroc(cued: Sequence[float], others: Sequence[float]) -> float:
    """Return the share of pairs (one score of each group) in which the cued one is higher; ties count one half."""
    a, b = np.asarray(cued, dtype=float), np.asarray(others, dtype=float)
    return float(_wins(a, b).mean())


def auroc_over_prompts(cued: Sequence[float], others: Sequence[float], prompts: Sequence[str]) -> Estimate:
    """Return the AUROC of paired transcripts with a percentile bootstrap over prompts.

    Args:
        cued: scores under the cue, one per pair.
        others: scores of the same pairs without the cue.
        prompts: the prompt of each pair. A prompt is drawn with all of its pairs, on both sides.
    """
    wins = _wins(np.asarray(cued, dtype=float), np.asarray(others, dtype=float))
    names, index = np.unique(np.asarray(prompts), return_inverse=True)
    by_prompt = np.zeros((len(names), len(names)))
    np.add.at(by_prompt, (index[:, None], index[None, :]), wins)
    counts = np.bincount(index).astype(float)
    draws = seeded_generator("known groups", len(wins), len(names))
    weights = draws.multinomial(len(names), np.full(len(names), 1 / len(names)), size=_DRAWS).astype(float)
    estimates = np.einsum("di,ij,dj->d", weights, by_prompt, weights, optimize=True) / (weights @ counts) ** 2
    low, high = np.quantile(estimates, [_TAIL, 1 - _TAIL])
    return Estimate(float(wins.mean()), float(low), float(high), len(names))


def _wins(cued: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    difference = cued[:, None] - others[None, :]
    wins: NDArray[np.float64] = (difference > 0) + 0.5 * (difference == 0)
    return wins


def precision_at(sensitivity: float, false_positive_rate: float, prevalence: float) -> float | None:
    """Return the share of flags that are right where `prevalence` of all transcripts have the state; None where nothing is flagged."""
    right, wrong = sensitivity * prevalence, false_positive_rate * (1 - prevalence)
    return right / (right + wrong) if right + wrong > 0 else None
