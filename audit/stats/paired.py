"""Tests of the same items measured twice: verbalised against internal, steered against unsteered, rewritten against original.

A pair is one item (and seed) under two conditions. If items have several seeds, tests and intervals treat the item as the independent
unit.
"""

from dataclasses import dataclass

import numpy as np
from scipy.signal import fftconvolve
from scipy.stats import binom, binomtest, norm

from audit.stats.bootstrap import DRAWS, bootstrap_mean
from audit.stats.rates import ALPHA, MISSING, YES, Bools, Codes, Estimate, Floats


@dataclass(frozen=True)
class McNemar:
    """Two measurements of the same `n` pairs as a 2x2 table, the exact two-sided p value, and the difference in rates."""

    n: int
    only_first: int
    only_second: int
    p: float
    """Exact p value of McNemar's test, or of its generalisation to several pairs per item.

    If few pairs differ, its error rate is far below the nominal level.
    """
    p_mid: float
    """Mid-p, which counts only half of the observed outcome's probability.

    Its error rate is closer to the nominal level and may exceed it slightly (Fagerland 2013).
    """
    both: int
    neither: int
    difference: Estimate
    """Rate under the second condition minus rate under the first, over items."""
    n_unscored: int = 0
    """Pairs left out because one or both sides got no verdict."""


@dataclass(frozen=True)
class AgainstParaphrase:
    """The change from a realism rewrite beyond the change from a neutral paraphrase of the same items."""

    rewrite: McNemar
    """Original (first condition) and rewrite (second)."""
    paraphrase: McNemar
    """Original (first condition) and paraphrase (second)."""
    beyond: McNemar
    """Difference in differences: rewrite minus paraphrase, because the original cancels on items that have all three versions."""
    bootstrap: Estimate
    """The same difference with a bootstrap interval from resampling items."""
    n_incomplete: int
    """Triples (original, rewrite, paraphrase) left out because at least one of them got no verdict."""


@dataclass(frozen=True)
class SignTest:
    """How many benchmarks changed in the predicted direction; benchmarks without a change are left out and counted as ties."""

    n: int
    n_predicted: int
    n_ties: int
    p: float
    """One-sided exact p value, for a direction predicted before the data were seen."""
    p_two_sided: float


def mcnemar_exact(first: Bools, second: Bools, items: Codes | None = None, *, n_unscored: int = 0) -> McNemar:
    """Return the exact McNemar test of paired outcomes.

    Args:
        first, second: outcome of each pair under the two conditions, shape (pair,).
        items: code of each pair's item, shape (pair,); None if every pair is an item of its own.
        n_unscored: number of pairs that were left out beforehand.

    With several pairs per item, p comes from the sign-flip test on the items' summed differences, computed exactly by convolution;
    with one pair per item this is McNemar's exact test. The interval is that of Bonett and Price (2012), a Wald interval after adding
    one imaginary item to each discordant cell, applied to the items' mean differences.
    """
    change = second.astype(np.int64) - first
    n_pairs = len(change)
    groups = np.arange(n_pairs) if items is None else np.unique(items, return_inverse=True)[1]
    sizes = np.bincount(groups)
    sums = np.round(np.bincount(groups, weights=change)).astype(np.int64)
    p, p_mid = _sign_flip(sums)
    return McNemar(
        n=n_pairs,
        only_first=int((first & ~second).sum()),
        only_second=int((~first & second).sum()),
        p=p,
        p_mid=p_mid,
        both=int((first & second).sum()),
        neither=int((~first & ~second).sum()),
        difference=bonett_price(sums / np.maximum(sizes, 1), n_unscored),
        n_unscored=n_unscored,
    )


def paired(first: Codes, second: Codes, items: Codes | None = None) -> McNemar:
    """Apply `mcnemar_exact` to two rows of verdict codes (YES or not), on the pairs that have both verdicts."""
    kept = (first != MISSING) & (second != MISSING)
    kept_items = None if items is None else items[kept]
    return mcnemar_exact(first[kept] == YES, second[kept] == YES, kept_items, n_unscored=int((~kept).sum()))


def bonett_price(changes: Floats, n_unscored: int) -> Estimate:
    """Return the mean of the items' changes, each from -1 to 1, with the interval of Bonett and Price (2012)."""
    n, method = len(changes), "Bonett-Price over items"
    if n == 0:
        return Estimate(None, None, None, 0, method, n_unscored, "no pair has both verdicts")
    middle = changes.sum() / (n + 2)
    variance = ((changes**2).sum() + 2) / (n + 2) - middle**2
    half = norm.ppf(1 - ALPHA / 2) * np.sqrt(variance / (n + 2))
    low, high = max(middle - half, -1.0), min(middle + half, 1.0)
    return Estimate(float(changes.mean()), float(low), float(high), n, method, n_unscored)


def _sign_flip(sums: Codes) -> tuple[float, float]:
    """Return the exact p and mid-p of the items' summed differences, under the hypothesis that each has a random sign."""
    sizes, counts = np.unique(np.abs(sums[sums != 0]), return_counts=True)
    if not len(sizes):
        return 1.0, 1.0
    chances = np.ones(1)  # distribution of the sum of the positive differences
    for size, count in zip(sizes, counts, strict=True):
        steps = np.zeros(size * count + 1)
        steps[::size] = binom.pmf(np.arange(count + 1), count, 0.5)
        chances = fftconvolve(chances, steps) if len(chances) > 1 else steps
    at = (len(chances) - 1 + abs(int(sums.sum()))) // 2
    p, observed = 2 * float(chances[at:].sum()), float(chances[at])
    return min(max(p, 0.0), 1.0), min(max(p - observed, 0.0), 1.0)


def against_paraphrase(
    original: Codes, rewritten: Codes, paraphrased: Codes, rng: np.random.Generator, items: Codes | None = None, *, draws: int = DRAWS
) -> AgainstParaphrase:
    """Compare the change by a realism rewrite with the change by a neutral paraphrase.

    Args:
        original, rewritten, paraphrased: verdict code of each triple's three versions, shape (triple,); only triples in which all three
            have a verdict are used.
        rng: draws the bootstrap.
        items: code of each triple's item; None if every triple is an item of its own.
        draws: number of bootstrap draws.
    """
    kept = (original != MISSING) & (rewritten != MISSING) & (paraphrased != MISSING)
    first, second, third = (row[kept] == YES for row in (original, rewritten, paraphrased))
    kept_items = None if items is None else items[kept]
    lost = int((~kept).sum())
    rewrite, paraphrase, beyond = (
        mcnemar_exact(before, after, kept_items, n_unscored=lost) for before, after in ((first, second), (first, third), (third, second))
    )
    resampled = bootstrap_mean(second.astype(np.float64) - third, rng, kept_items, draws=draws)
    return AgainstParaphrase(rewrite, paraphrase, beyond, resampled, lost)


def sign_test(changes: Floats) -> SignTest:
    """Return the exact sign test over benchmarks; `changes` has one value per benchmark, positive if the rate changed as predicted."""
    moved = changes[changes != 0]
    n, predicted = len(moved), int((moved > 0).sum())
    one_sided, two_sided = (float(binomtest(predicted, n, alternative=side).pvalue) if n else 1.0 for side in ("greater", "two-sided"))
    return SignTest(n, predicted, int((changes == 0).sum()), one_sided, two_sided)
