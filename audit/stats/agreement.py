"""Agreement of annotators and graders: pure functions of label codes and a seeded generator, each with a named result.

Labels are integer codes of shape (item, annotator): 0 is YES, and `MISSING` means that there is no label. Resampling items with
replacement is the same as a multinomial draw over the distinct rows of labels, so the bootstrap of a statistic takes only a few matrix
products for all draws. Intervals are 95 %. Where statsmodels or scipy implement a formula, they are used.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import log

import numpy as np
from scipy.stats import binom
from statsmodels.stats.proportion import proportion_confint

from audit.stats.bootstrap import DRAWS, percentile_interval
from audit.stats.rates import ALPHA, CATEGORIES, MISSING, YES, Codes, Estimate, Floats, false_positive_rate, wilson


@dataclass(frozen=True)
class Agreement:
    """Four measures of agreement among annotators of the same items."""

    percent: Estimate
    kappa: Estimate
    ac1: Estimate
    alpha: Estimate


@dataclass(frozen=True)
class Quality:
    """A grader's YES compared with a reference; UNCLEAR is not YES on either side."""

    sensitivity: Estimate
    specificity: Estimate
    ppv: Estimate
    false_positives: Estimate
    """False positive rate (1 - specificity), with its one-sided bound."""


@dataclass(frozen=True)
class Pair:
    """Two raters on the same items."""

    first: str
    second: str
    figures: Agreement
    confusion: list[list[int]]
    """Counts by verdict of the first (rows) and the second rater (columns), in the order of `CATEGORIES`.
    The last column counts items for which the second rater gave no verdict."""


@dataclass(frozen=True)
class Change:
    """One figure for an earlier and a later grader on the same items (None where undefined), and whether it fell too far."""

    name: str
    before: float | None
    now: float | None
    fell: bool


@dataclass(frozen=True)
class _Resamples:
    """Distinct rows of labels and how often each occurs, in the data and in every bootstrap draw.

    `votes` has shape (row, annotator, category) and is 1 where the annotator chose the category. `weights` has shape (1 + draws, row):
    its first row counts the data, the others count the draws.
    """

    votes: Floats
    weights: Floats


def agreement(labels: Codes, rng: np.random.Generator, *, n_categories: int = len(CATEGORIES), draws: int = DRAWS) -> Agreement:
    """Measure the agreement of two or more annotators.

    Args:
        labels: codes of shape (item, annotator), with at least two annotators; missing labels are allowed.
        rng: draws the resamples.
        n_categories: size of the closed label set; AC1 depends on it even if a label is never used.
        draws: number of resamples of the items.

    Returns:
        Percent agreement (mean over items of the share of agreeing pairs; Wilson for two annotators), Cohen's kappa (1960;
        for more than two annotators the mean over pairs, Light 1971), AC1 (Gwet 2008) and nominal alpha (Krippendorff 2011).
        A figure that is undefined, or that would have the same value at any level of agreement, is None with a reason.
    """
    labels = labels[(labels != MISSING).any(axis=1)]
    if labels.shape[1] == 2:
        labels = labels[(labels != MISSING).all(axis=1)]
    pairable = labels[(labels != MISSING).sum(axis=1) > 1]
    n = len(pairable)
    if n == 0:
        none = Estimate(None, None, None, 0, "bootstrap", reason="no item has labels from two annotators")
        return Agreement(none, none, none, none)
    resamples = _resample(labels, n_categories, rng, draws)
    used = np.unique(pairable[pairable != MISSING])
    one_label = "only one label was used" if len(used) == 1 else ""
    percent = _bootstrap(_percent, resamples, n)
    return Agreement(
        percent=wilson(int((labels[:, 0] == labels[:, 1]).sum()), n) if labels.shape[1] == 2 else percent,
        kappa=_bootstrap(_kappa, resamples, n, undefined=one_label or _kappa_is_fixed(labels)),
        ac1=_bootstrap(_ac1, resamples, n),
        alpha=_bootstrap(_alpha, resamples, n, undefined=one_label),
    )


def _resample(labels: Codes, n_categories: int, rng: np.random.Generator, draws: int) -> _Resamples:
    rows, counts = np.unique(labels, axis=0, return_counts=True)
    drawn = rng.multinomial(len(labels), counts / len(labels), size=draws)
    votes = (rows[:, :, None] == np.arange(n_categories)).astype(np.float64)
    return _Resamples(votes, np.vstack([counts, drawn]).astype(np.float64))


def _kappa_is_fixed(labels: Codes) -> str:
    """Return why kappa is uninformative, or "" if it is not.

    Kappa is undefined if two annotators labelled no item in common, and always 0 if an annotator used only one label.
    """
    for first, second in combinations(labels.T, 2):
        both = (first != MISSING) & (second != MISSING)
        if not both.any():
            return "a pair of annotators has no item in common"
        if min(len(np.unique(first[both])), len(np.unique(second[both]))) == 1:
            return "an annotator used only one label, so kappa is 0 at any level of agreement"
    return ""


def _bootstrap(statistic: Callable[[_Resamples], Floats], resamples: _Resamples, n: int, *, undefined: str = "") -> Estimate:
    """Return a statistic of the data with the percentile interval of its draws.

    Draws in which the statistic is undefined are left out; `method` states how many were used.
    """
    total = len(resamples.weights) - 1
    if undefined:
        return Estimate(None, None, None, n, "bootstrap over items", reason=undefined)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = statistic(resamples)
    drawn = values[1:][np.isfinite(values[1:])]
    method = f"bootstrap over items, {len(drawn):,} of {total:,} draws"
    if drawn.max(initial=values[0]) - drawn.min(initial=values[0]) < 1e-12:
        return Estimate(float(values[0]), None, None, n, method, reason="all draws are equal, so the bootstrap gives no interval")
    low, high = percentile_interval(drawn)
    return Estimate(float(values[0]), low, high, n, method)


def _shares(resamples: _Resamples) -> tuple[Floats, Floats, Floats]:
    """Return for each row: labels per category, number of labels, and share of agreeing pairs of labels (0 if there is no pair)."""
    counts = resamples.votes.sum(axis=1)
    given = counts.sum(axis=1)
    pairs = np.maximum(given * (given - 1), 1)
    return counts, given, (counts * (counts - 1)).sum(axis=1) / pairs


def _percent(resamples: _Resamples) -> Floats:
    _, given, shares = _shares(resamples)
    percent: Floats = (resamples.weights @ shares) / (resamples.weights @ (given > 1))
    return percent


def _ac1(resamples: _Resamples) -> Floats:
    """Return Gwet's AC1; items with only one label contribute only to the agreement expected by chance."""
    counts, given, _ = _shares(resamples)
    prevalence = (resamples.weights @ (counts / given[:, None])) / resamples.weights.sum(axis=1, keepdims=True)
    chance = (prevalence * (1 - prevalence)).sum(axis=1) / (counts.shape[1] - 1)
    ac1: Floats = (_percent(resamples) - chance) / (1 - chance)
    return ac1


def _alpha(resamples: _Resamples) -> Floats:
    """Return Krippendorff's nominal alpha, computed from the pairs of labels on items with two or more labels."""
    counts, given, shares = _shares(resamples)
    pairable = np.where(given > 1, given, 0)
    totals = resamples.weights @ (counts * (given > 1)[:, None])
    n = totals.sum(axis=1)
    observed = 1 - (resamples.weights @ (shares * pairable)) / n
    expected = 1 - (totals * (totals - 1)).sum(axis=1) / (n * (n - 1))
    alpha: Floats = 1 - observed / expected
    return alpha


def _kappa(resamples: _Resamples) -> Floats:
    """Return Cohen's kappa, averaged over the pairs of annotators."""
    kappas = []
    for first, second in combinations(range(resamples.votes.shape[1]), 2):
        both = resamples.votes[:, [first, second]].sum(axis=2).all(axis=1)
        of_first, of_second = (resamples.votes[:, annotator] * both[:, None] for annotator in (first, second))
        n = resamples.weights @ both
        chance = ((resamples.weights @ of_first) * (resamples.weights @ of_second)).sum(axis=1) / n**2
        kappas.append(((resamples.weights @ (of_first * of_second).sum(axis=1)) / n - chance) / (1 - chance))
    mean: Floats = np.mean(kappas, axis=0)
    return mean


def quality(reference: Codes, grader: Codes, prevalence: float) -> Quality:
    """Measure the sensitivity, specificity and PPV of a grader's YES.

    Args:
        reference: the true verdict of each item, shape (item,); items without a reference are left out.
        grader: the grader's verdict of each item, shape (item,); unscored items are left out and counted.
        prevalence: true share of YES that the PPV assumes.
    """
    known, positive, scored, said_yes = reference != MISSING, reference == YES, grader != MISSING, grader == YES
    hit, n_yes = int((positive & said_yes).sum()), int((positive & scored).sum())
    kept, n_other = int((known & ~positive & scored & ~said_yes).sum()), int((known & ~positive & scored).sum())
    return Quality(
        wilson(hit, n_yes, n_unscored=int((positive & ~scored).sum()), empty="no scored item has the reference YES"),
        wilson(kept, n_other, n_unscored=int((known & ~positive & ~scored).sum()), empty="every scored item has the reference YES"),
        ppv(hit, n_yes, n_other - kept, n_other, prevalence, n_unscored=int((known & ~scored).sum())),
        false_positive_rate(n_other - kept, n_other, n_unscored=int((known & ~positive & ~scored).sum())),
    )


def quality_by(names: Sequence[str], reference: Codes, grader: Codes, prevalence: float) -> dict[str, Quality]:
    """Return `quality` for each group of items; `names` holds the group of each item. Groups are in alphabetical order."""
    groups = np.array(names)
    return {name: quality(reference[groups == name], grader[groups == name], prevalence) for name in sorted(set(names))}


def pair(first: str, second: str, labels: Codes, rng: np.random.Generator) -> Pair:
    """Measure agreement and confusion of two raters; `labels` has shape (item, 2)."""
    return Pair(first, second, agreement(labels, rng), confusion(labels[:, 0], labels[:, 1]).tolist())


def ppv(hits: int, n_yes: int, false_alarms: int, n_other: int, prevalence: float, *, n_unscored: int = 0) -> Estimate:
    """Return the positive predictive value: the share of YES verdicts that are correct if a share `prevalence` of the items is YES.

    The interval combines the Wilson limits of sensitivity and false positive rate on the log scale (MOVER, Zou and Donner 2008). In
    simulations with few false positives its coverage is 95 to 97 %; that of the delta method with Agresti-Coull adjusted rates is 42 to
    90 %.
    """
    method, n = "MOVER of two Wilson intervals", n_yes + n_other
    if not n_yes or not n_other:
        return Estimate(None, None, None, n, method, n_unscored, "it needs items with the reference YES and items with another one")
    if not hits and not false_alarms:
        return Estimate(None, None, None, n, method, n_unscored, "the grader never said YES")
    with np.errstate(divide="ignore"):  # a rate of 0 becomes -inf, the lower end of the log scale
        hit, hit_low, hit_high = np.log(_with_limits(hits, n_yes))
        alarm, alarm_low, alarm_high = np.log(_with_limits(false_alarms, n_other))
    ratio = hit - alarm
    low = ratio - np.hypot(hit - hit_low, alarm_high - alarm) if hits and false_alarms else hit_low - alarm_high
    high = ratio + np.hypot(hit_high - hit, alarm - alarm_low) if hits and false_alarms else hit_high - alarm_low
    odds = log(prevalence / (1 - prevalence))
    estimate, low, high = (float(1 / (1 + np.exp(-(end + odds)))) for end in (ratio, low, high))
    return Estimate(estimate, low, high, n, method, n_unscored)


def _with_limits(successes: int, n: int) -> Floats:
    """Return a share and the two ends of its Wilson interval, shape (3,)."""
    low, high = proportion_confint(successes, n, alpha=ALPHA, method="wilson")
    return np.array([successes / n, max(low, 0), min(high, 1)])


def confusion(reference: Codes, grader: Codes) -> Codes:
    """Count items by reference (row) and grader (column), in the order of `CATEGORIES`; the last column counts unscored items."""
    table = np.zeros((len(CATEGORIES), len(CATEGORIES) + 1), dtype=np.int64)
    known = reference != MISSING
    np.add.at(table, (reference[known], grader[known]), 1)  # MISSING is -1, which indexes the last column
    return table


def changes(reference: Codes, before: Codes, now: Codes, max_drop: float) -> list[Change]:
    """Compare the figures of an earlier and a later grader on the same items, and mark each figure that dropped by more than `max_drop`.

    Sensitivity, specificity and the share of exact verdicts are measured on the items that both scored. The share of scored items is
    a separate figure, so a grader that stops giving verdicts is noticed too.
    """
    known = reference != MISSING
    both = known & (before != MISSING) & (now != MISSING)
    figures: dict[str, tuple[Estimate, Estimate]] = {"scored": (_scored(before), _scored(now))}
    old, new = (quality(reference[both], grader[both], prevalence=0.5) for grader in (before, now))
    figures["sensitivity"] = (old.sensitivity, new.sensitivity)
    figures["specificity"] = (old.specificity, new.specificity)
    exact = [wilson(int((reference[both] == grader[both]).sum()), int(both.sum())) for grader in (before, now)]
    figures["exact verdict"] = (exact[0], exact[1])
    pairs = {name: (first.estimate, second.estimate) for name, (first, second) in figures.items()}
    return [Change(name, first, second, _fell(first, second, max_drop)) for name, (first, second) in pairs.items()]


def _scored(grader: Codes) -> Estimate:
    return wilson(int((grader != MISSING).sum()), len(grader))


def _fell(before: float | None, now: float | None, max_drop: float) -> bool:
    return before is not None and now is not None and before - now > max_drop + 1e-12  # as floats, 0.92 - 0.9 is more than 0.02


def labels_needed(bound: float, *, false_positives: int = 0) -> int:
    """Return how many items whose label is not YES are needed to show, with 95 % confidence, a false positive rate below a bound.

    The number is exact (one-sided Clopper-Pearson) and assumes that the grader says YES on `false_positives` of these items. Without
    false positives it is log(0.05) / log(1 - bound), which the rule of three approximates.
    """
    most = 1
    while binom.cdf(false_positives, most, bound) > ALPHA:
        most *= 2
    return bisect_left(range(most), True, key=lambda n: bool(binom.cdf(false_positives, n, bound) <= ALPHA))
