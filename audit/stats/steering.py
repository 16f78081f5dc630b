"""Tests of whether the flagged rate changes with steering strength, and by more than with random directions of the same norm."""

from dataclasses import dataclass

import numpy as np
import statsmodels.api as sm
from scipy.stats import norm
from statsmodels.genmod.cov_struct import Exchangeable

from audit.stats.paired import McNemar, paired
from audit.stats.rates import MISSING, YES, Codes, Floats, Test
from nla.support.errors import DataError


@dataclass(frozen=True)
class Trend:
    """Whether the flagged rate changes with steering strength, and by how much per unit of strength."""

    within_items: Test
    """Two-sided test that compares each item with itself at other strengths; its statistic is a z score, positive if the rate rises."""
    slope: float | None
    """Log-odds of a flag per unit of strength (logistic GEE, clustered by item); None if the model could not be fitted."""


@dataclass(frozen=True)
class AgainstRandom:
    """Effects of a steering vector ranked among those of random directions with the same norm."""

    p: Floats
    """P value per strength: (1 + number of random effects at least as large) / (1 + number of directions)."""
    reachable: float
    """The smallest p value that this number of directions allows."""


def by_strength(verdicts: Codes, strengths: Floats, items: Codes, seeds: Codes) -> dict[float, McNemar]:
    """Compare every strength (second condition) with strength 0 (first) on the same items and seeds, by the exact McNemar test.

    Args:
        verdicts, strengths, items, seeds: of each transcript, shape (transcript,).

    Raises:
        DataError: nothing was run at strength 0, or an item and seed occur twice at one strength.
    """
    _, cells = np.unique(np.stack([items, seeds]), axis=1, return_inverse=True)
    cells = cells.ravel()
    base = strengths == 0
    if not base.any():
        raise DataError(f"Strengths are {np.unique(strengths).tolist()}: expected 0 among them; run the unsteered condition too.")
    results = {}
    for strength in np.unique(strengths[~base]):
        first, second = (_by_cell(verdicts[at], cells[at], int(cells.max()) + 1) for at in (base, strengths == strength))
        run = (first != _ABSENT) & (second != _ABSENT)
        item_of = np.zeros(int(cells.max()) + 1, dtype=np.int64)
        item_of[cells] = items
        results[float(strength)] = paired(first[run], second[run], item_of[run])
    return results


_ABSENT = -2
"""Code for an item and seed that was not run at a strength; `MISSING` means that it was run but has no verdict."""


def _by_cell(verdicts: Codes, cells: Codes, n_cells: int) -> Codes:
    """Return the verdicts indexed by cell (the number of an item and seed); `_ABSENT` for cells that were not run."""
    if len(np.unique(cells)) < len(cells):
        raise DataError("An item and seed occur twice at one strength: expected each pair once; give every repetition its own seed.")
    row = np.full(n_cells, _ABSENT, dtype=np.int64)
    row[cells] = verdicts
    return row


def trend(verdicts: Codes, strengths: Floats, items: Codes) -> Trend:
    """Return the trend of the flagged rate over strengths, from one verdict per transcript; unscored transcripts are left out and counted.

    The test is the extended Mantel test for a trend, stratified by item (the score test of conditional logistic regression). The slope
    comes from a logistic GEE with exchangeable correlation within items.
    """
    kept = verdicts != MISSING
    yes, dose, groups = (verdicts[kept] == YES).astype(np.float64), strengths[kept], np.unique(items[kept], return_inverse=True)[1]
    unscored, method = int((~kept).sum()), "Mantel trend, stratified by item"
    if len(np.unique(dose)) < 2 or len(np.unique(yes)) < 2:
        reason = "a trend needs at least two strengths, with flagged and unflagged transcripts among them"
        return Trend(Test(None, None, len(yes), method, unscored, reason), None)
    z = _mantel(yes, dose, groups)
    reason = "" if z is not None else "no item was flagged at one strength and not at another"
    p = None if z is None else float(2 * norm.sf(abs(z)))
    return Trend(Test(z, p, len(yes), method, unscored, reason), _gee_slope(yes, dose, groups))


def _mantel(yes: Floats, dose: Floats, groups: Codes) -> float | None:
    """Return the z score of the sum of dose times outcome, given each item's doses and number of flags (permutations within items).

    It is None if no item has both different doses and different outcomes.
    """
    sizes = np.bincount(groups)
    flags, doses = np.bincount(groups, weights=yes), np.bincount(groups, weights=dose)
    spread = np.bincount(groups, weights=dose**2) - doses**2 / sizes
    observed = float(yes @ dose - (flags * doses / sizes).sum())
    variance = float((flags * (sizes - flags) * spread / np.maximum(sizes * (sizes - 1), 1)).sum())
    return observed / variance**0.5 if variance > 1e-12 * max(float((dose**2).sum()), 1e-300) else None


def _gee_slope(yes: Floats, dose: Floats, groups: Codes) -> float | None:
    """Return the slope of the GEE in log-odds per unit of dose; None with fewer than three items, or if the fit is not usable."""
    if len(np.unique(groups)) < 3:
        return None
    unit = float(np.abs(dose).max())  # without rescaling, strengths of 0.01 would make the fit stop too early
    model = sm.GEE(yes, sm.add_constant(dose / unit), groups, family=sm.families.Binomial(), cov_struct=Exchangeable())
    try:
        with np.errstate(all="ignore"):  # a perfect correlation within items divides by 0; the result is rejected below
            fit = model.fit(cov_type="bias_reduced")
    except np.linalg.LinAlgError:
        return None
    with np.errstate(invalid="ignore"):  # a negative variance gives a standard error of NaN, which is rejected below
        slope, error = float(fit.params[1]), float(fit.bse[1])
    if not fit.converged or not np.isfinite(error) or error == 0 or abs(slope) > 20:  # for example if all or none are flagged at a strength
        return None
    return slope / unit


def against_random(effects: Floats, random_effects: Floats) -> AgainstRandom:
    """Rank the effects of a steering vector among those of random directions with the same norm.

    Args:
        effects: change of the rate per strength, positive in the predicted direction; shape (strength,).
        random_effects: the same for each random direction; shape (direction, strength).

    The p values are rank-based, so no distribution is assumed. The observed vector counts as one of the directions, so no p value is 0:
    with 3 random directions the smallest possible p value is 0.25, and a p value of 0.05 requires 19 of them.

    Raises:
        DataError: the shapes do not match, or an effect is NaN.
    """
    if random_effects.ndim != 2 or random_effects.shape[1:] != effects.shape or not effects.size:
        raise DataError(
            f"Random effects have shape {random_effects.shape} for effects of shape {effects.shape}: expected (direction, strength) and "
            "(strength,); run every direction at every strength."
        )
    if np.isnan(effects).any() or np.isnan(random_effects).any():
        raise DataError("An effect is NaN: expected a number; leave out strengths that were not measured for every direction.")
    n, tolerance = len(random_effects), 1e-12  # rates are fractions: 0.3 - 0.1 must tie with 0.2
    p = (1 + (random_effects >= effects - tolerance).sum(axis=0)) / (1 + n)
    return AgainstRandom(p, 1 / (1 + n))
