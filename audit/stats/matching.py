"""Matched partners: one-to-one pairs of two groups whose distances are smallest in sum, without replacement."""

import numpy as np
from scipy.optimize import linear_sum_assignment

from audit.stats.rates import Codes, Floats


def matched_pairs(distances: Floats, limit: float, rng: np.random.Generator) -> tuple[Codes, Codes]:
    """Return the rows and the columns of the pairs, in the order of rows.

    The most pairs closer than the limit are formed, and among all ways to do so the one with the smallest sum of distances. Ties are broken
    by a random order.

    Args:
        distances: of each member of the first group (row) to each of the second (column), at least 0; infinite where no pair is allowed.
        limit: pairs at a larger distance are not formed.
        rng: draws the order.
    """
    order, others = rng.permutation(distances.shape[0]), rng.permutation(distances.shape[1])
    shuffled = distances[np.ix_(order, others)]
    allowed = shuffled <= limit
    forbidden = 1 + float(shuffled[allowed].max(initial=0)) * (min(distances.shape) + 1)  # dearer than any set of allowed pairs
    rows, columns = linear_sum_assignment(np.where(allowed, shuffled, forbidden))
    kept = allowed[rows, columns]
    first, second = order[rows[kept]], others[columns[kept]]
    ranked = np.argsort(first)
    return first[ranked].astype(np.int64), second[ranked].astype(np.int64)
