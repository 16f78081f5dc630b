"""Pearson's and Spearman's correlation of two measures of the same transcripts, with bootstrap intervals over items.

Within groups (benchmarks), each group's values, or its ranks, are centred on the group's own mean, so that differences between groups
add nothing. With one group these are the usual coefficients.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np

from audit.stats.bootstrap import DRAWS, cluster_weights, resampled_estimate, undefined
from audit.stats.rates import Codes, Estimate, Floats
from nla.organisms.statistics import cumulated

Kind = Literal["pearson", "spearman"]
_CHUNK_CELLS = 1_000_000
"""Draws are taken in portions of at most this many weights, which bounds the memory."""
_ROUNDING = 1e-12
"""A variance below this share of the values' squares is that of a constant."""


def correlation(first: Floats, second: Floats, items: Codes, kind: Kind, groups: Codes | None = None, *, draws: int = DRAWS) -> Estimate:
    """Return the correlation of two measures over transcripts.

    Args:
        first, second: scores of the same transcripts, shape (transcript,), without NaN.
        items: code of each transcript's item, which is resampled with all of its transcripts.
        kind: `pearson`, or `spearman` on mid-ranks (divided by the number of transcripts in the group).
        groups: code of each transcript's group, for the correlation within groups; None correlates over all transcripts.
        draws: number of resamples.

    The correlation is undefined (None, with the reason) if one of the measures is constant, or constant in every group.
    """
    members = _members(groups, len(first))
    if reason := _undefined(first, second, members, "" if groups is None else " within every benchmark"):
        return undefined(len(first), reason)
    centred = _centred_ranks if kind == "spearman" else _centred
    clusters = np.unique(items, return_inverse=True)[1]
    n_items = int(clusters.max()) + 1
    weights = cluster_weights(n_items, ("correlation",), draws)
    step = max(1, _CHUNK_CELLS // len(first))
    portions = [_coefficients(first, second, weights[clusters, start : start + step], members, centred) for start in range(0, draws, step)]
    estimate = float(_coefficients(first, second, np.ones((len(first), 1)), members, centred)[0])
    return replace(resampled_estimate(estimate, np.concatenate(portions), n_items), n=len(first))


def _undefined(first: Floats, second: Floats, members: list[Codes], where: str) -> str:
    """Return why there is no correlation; empty if there is one."""
    if len(first) < 3:
        return f"{len(first)} transcripts are too few for a correlation"
    both = (("first", first), ("second", second))
    constant = [name for name, scores in both if all(np.ptp(scores[rows]) == 0 for rows in members)]
    return f"the {' and the '.join(constant)} measure is constant{where}, so it correlates with nothing" if constant else ""


def _members(groups: Codes | None, n: int) -> list[Codes]:
    """Return the rows of each group."""
    if groups is None:
        return [np.arange(n)]
    return [np.flatnonzero(groups == group) for group in np.unique(groups)]


def _coefficients(
    first: Floats, second: Floats, weights: Floats, members: list[Codes], centred: Callable[[Floats, Floats], Floats]
) -> Floats:
    """Return the correlation in each resample, shape (draw,); NaN where a measure is constant. `weights` has shape (transcript, draw)."""
    sums = np.zeros((3, weights.shape[1]))
    for rows in members:
        drawn = weights[rows]
        a, b = centred(first[rows], drawn), centred(second[rows], drawn)
        weighted = drawn * a
        sums[0] += np.einsum("id,id->d", weighted, b)
        sums[1] += np.einsum("id,id->d", weighted, a)
        sums[2] += np.einsum("id,id->d", drawn * b, b)
    scales = np.abs(sums[1:]).max(axis=1)
    varied = (sums[1:] > _ROUNDING * np.maximum(scales, 1e-300)[:, None]).all(axis=0)
    coefficients: Floats = np.divide(
        sums[0], np.sqrt(np.where(varied, sums[1] * sums[2], 1)), out=np.full(len(varied), np.nan), where=varied
    )
    return coefficients


def _centred(scores: Floats, drawn: Floats) -> Floats:
    """Return the scores minus their mean in each resample, shape (transcript, draw)."""
    means: Floats = scores @ drawn / np.maximum(drawn.sum(axis=0), 1)
    return scores[:, None] - means


def _centred_ranks(scores: Floats, drawn: Floats) -> Floats:
    """Return the mid-ranks of the scores in each resample, divided by the number drawn and centred; shape (transcript, draw)."""
    levels = np.unique(scores, return_inverse=True)[1]
    order = np.argsort(levels, kind="stable")
    at_level = np.add.reduceat(drawn[order], np.searchsorted(levels[order], np.arange(levels.max() + 1)), axis=0)
    up_to = cumulated(at_level)
    ranks: Floats = ((up_to - at_level / 2) / np.maximum(up_to[-1], 1) - 0.5)[levels]
    return ranks
