"""Confidence intervals of a pair's scores: 95 % percentile bootstrap over whole documents.

Vectors of one document are alike, so documents are resampled, not vectors. The audit's statistics (`audit.stats`) lie above `nla` and
need statsmodels, which a training machine does not have; hence the few lines here.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from nla.pair.metrics import mse_nrm, unit
from nla.support.seeds import seeded_generator

_DRAWS = 2_000
"""Bootstrap draws."""
_TAIL = 0.025
"""Probability left out on either side of an interval."""


def fve_interval(gold: Float[Tensor, "n d_model"], predicted: Float[Tensor, "n d_model"], documents: Sequence[str]) -> tuple[float, float]:
    """Return the interval of fve_nrm; each bootstrap draw has its own denominator.

    Args:
        gold: raw vectors that were explained.
        predicted: their reconstructions; lengths do not matter.
        documents: document id of each vector.
    """
    index, weights = _document_weights(documents)
    g = unit(gold).numpy()
    error = np.bincount(index, weights=mse_nrm(gold, predicted).numpy())
    count = np.bincount(index).astype(float)
    sums = np.zeros((len(count), g.shape[1]))
    np.add.at(sums, index, g)
    n = weights @ count
    mean = (weights @ sums) / n[:, None]
    variance = 1 - (mean**2).sum(axis=1)  # of unit vectors
    return _percentiles(1 - (weights @ error) / n / variance)


def mean_interval(values: NDArray[np.float64], documents: Sequence[str]) -> tuple[float, float]:
    """Return the interval of the mean of one value per vector (`[n]`); `documents` are the vectors' document ids."""
    index, weights = _document_weights(documents)
    total, count = np.bincount(index, weights=values), np.bincount(index).astype(float)
    return _percentiles((weights @ total) / (weights @ count))


def _document_weights(documents: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the document number of each vector, and how often each draw took each document (`[draws, documents]`)."""
    names, index = np.unique(np.asarray(documents), return_inverse=True)
    draws = seeded_generator("bootstrap", len(documents), len(names))
    return index, draws.multinomial(len(names), np.full(len(names), 1 / len(names)), size=_DRAWS).astype(float)


def _percentiles(estimates: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(estimates, [_TAIL, 1 - _TAIL])
    return float(low), float(high)
