"""Whether the flagged rate rises with steering strength, and whether it does so more than under random directions of the same norm."""

from dataclasses import dataclass

import numpy as np
import statsmodels.api as sm
from scipy.stats import norm
from statsmodels.genmod.cov_struct import Exchangeable
from statsmodels.stats.contingency_tables import Table

from audit.stats.paired import McNemar, paired
from audit.stats.rates import MISSING, YES, Codes, Floats, Test
from nla.support.errors import DataError


@dataclass(frozen=True)
class Trend:
    """Three tests of the same trend, two-sided; their statistics are z scores, positive where the rate rises with strength."""

    within_items: Test
    """The headline: each item against itself at the other strengths."""
    gee: Test
    slope: float | None
    """Log odds of a flag for one unit of strength, by the GEE model."""
    cochran_armitage: Test
    """Takes all transcripts as independent: conservative on paired items, and the usual name."""


@dataclass(frozen=True)
class AgainstRandom:
    """A steering vector's effects ranked among those of random directions."""

    p: Floats
    """Of each strength: (1 + random effects at least as large) / (1 + directions)."""
    p_max: Floats
    """Corrected over strengths: each effect against the largest of each direction (Westfall and Young's single step)."""
    p_any: float
    """The largest effect against the largest of each direction: does the vector do anything, at any strength?"""
    reachable: float
    """The smallest p value that so few directions allow."""
    n_directions: int


def by_strength(verdicts: Codes, strengths: Floats, items: Codes, seeds: Codes) -> dict[float, McNemar]:
    """Exact McNemar of every strength (second) against strength 0 (first), on the same items and seeds.

    Raises:
        DataError: nothing was run at strength 0, or an item and seed occur twice at a strength.
    """
    _, cells = np.unique(np.stack([items, seeds]), axis=1, return_inverse=True)
    cells = cells.ravel()
    base = strengths == 0
    if not base.any():
        raise DataError(f"found strengths {np.unique(strengths).tolist()}, expected 0 among them; run the unsteered condition too.")
    results = {}
    for strength in np.unique(strengths[~base]):
        first, second = (_by_cell(verdicts[at], cells[at], int(cells.max()) + 1) for at in (base, strengths == strength))
        run = (first != _ABSENT) & (second != _ABSENT)
        item_of = np.zeros(int(cells.max()) + 1, dtype=np.int64)
        item_of[cells] = items
        results[float(strength)] = paired(first[run], second[run], item_of[run])
    return results


_ABSENT = -2


def _by_cell(verdicts: Codes, cells: Codes, n_cells: int) -> Codes:
    """Verdicts by position of their item and seed."""
    if len(np.unique(cells)) < len(cells):
        raise DataError("found an item and seed twice at one strength, expected once; give every repeat a seed of its own.")
    row = np.full(n_cells, _ABSENT, dtype=np.int64)
    row[cells] = verdicts
    return row


def trend(verdicts: Codes, strengths: Floats, items: Codes) -> Trend:
    """Trend of the flagged rate over strengths, one row a transcript; unscored transcripts are left out and counted.

    The headline is the extended Mantel test for a trend stratified by item (the score test of conditional logistic
    regression); the GEE is logistic with exchangeable correlation in items and Mancl and DeRouen's covariance, which keeps its
    level with few items.
    """
    kept = verdicts != MISSING
    yes, dose, groups = (verdicts[kept] == YES).astype(np.float64), strengths[kept], np.unique(items[kept], return_inverse=True)[1]
    lost = int((~kept).sum())
    reason = "" if len(np.unique(dose)) > 1 and len(np.unique(yes)) > 1 else "it needs two strengths, and both verdicts among them"
    names = ("Mantel trend, stratified by item", "GEE logistic, exchangeable in items", "Cochran-Armitage")
    if reason:
        within, model, plain = (Test(None, None, len(yes), name, lost, reason) for name in names)
        return Trend(within, model, None, plain)
    slope, z_gee, why = _gee(yes, dose, groups)
    doses, levels = np.unique(dose, return_inverse=True)
    table = np.stack([np.bincount(levels[yes == value], minlength=len(doses)) for value in (0, 1)])
    plain_z = float(Table(table, shift_zeros=False).test_ordinal_association(np.array([0.0, 1.0]), doses).zscore)
    within_z = _mantel(yes, dose, groups)
    within_why = "" if within_z is not None else "no item was flagged at one strength and not at another"
    return Trend(
        _two_sided(within_z, len(yes), names[0], lost, within_why),
        _two_sided(z_gee, len(yes), names[1], lost, why),
        slope,
        _two_sided(plain_z, len(yes), names[2], lost),
    )


def _two_sided(z: float | None, n: int, method: str, n_unscored: int, reason: str = "") -> Test:
    return Test(z, None if z is None else float(2 * norm.sf(abs(z))), n, method, n_unscored, reason)


def _mantel(yes: Floats, dose: Floats, groups: Codes) -> float | None:
    """z of the sum over items of dose times outcome, given each item's doses and number of flags (permutations within items)."""
    sizes = np.bincount(groups)
    flags, doses = np.bincount(groups, weights=yes), np.bincount(groups, weights=dose)
    spread = np.bincount(groups, weights=dose**2) - doses**2 / sizes
    observed = float(yes @ dose - (flags * doses / sizes).sum())
    variance = float((flags * (sizes - flags) * spread / np.maximum(sizes * (sizes - 1), 1)).sum())
    return observed / variance**0.5 if variance > 1e-12 * max(float((dose**2).sum()), 1e-300) else None


def _gee(yes: Floats, dose: Floats, groups: Codes) -> tuple[float | None, float | None, str]:
    """Slope and its z score, or why there is none."""
    if len(np.unique(groups)) < 3:
        return None, None, "a robust variance needs three items"
    unit = float(np.abs(dose).max())  # strengths of 0.01 would make the fit stop early
    model = sm.GEE(yes, sm.add_constant(dose / unit), groups, family=sm.families.Binomial(), cov_struct=Exchangeable())
    try:
        fit = model.fit(cov_type="bias_reduced")
    except np.linalg.LinAlgError:
        return None, None, "the model could not be fitted"
    with np.errstate(invalid="ignore"):  # a negative variance on the diagonal is not finite below
        slope, error = float(fit.params[1]), float(fit.bse[1])
    if not fit.converged or not np.isfinite(error) or error == 0 or abs(slope) > 20:
        return None, None, "the model did not converge (a strength at which all or none are flagged)"
    return slope / unit, slope / error, ""


def against_random(effects: Floats, random_effects: Floats) -> AgainstRandom:
    """Effects of a steering vector against those of random directions of the same norm.

    Args:
        effects: change of the rate at each strength, counted positive in the predicted direction.
        random_effects: the same of each random direction (direction, strength).

    Rank-based, so that nothing is assumed of the distribution; the observed vector counts as one of the directions (the +1
    rule), so no p value is 0: with 3 directions none is below 0.25, and 19 are needed for 0.05.
    """
    if random_effects.ndim != 2 or random_effects.shape[1:] != effects.shape or not effects.size:
        found = f"{random_effects.shape} against {effects.shape}"
        raise DataError(
            f"found random effects of {found}, expected (direction, strength) against (strength); run each direction at every strength."
        )
    if np.isnan(effects).any() or np.isnan(random_effects).any():
        raise DataError("found an effect that is NaN, expected a number; leave out strengths that were not measured for every direction.")
    n, tolerance = len(random_effects), 1e-12  # rates are fractions: 0.3 - 0.1 must tie with 0.2
    largest = random_effects.max(axis=1)
    p = (1 + (random_effects >= effects - tolerance).sum(axis=0)) / (1 + n)
    p_max = (1 + (largest[:, None] >= effects - tolerance).sum(axis=0)) / (1 + n)
    return AgainstRandom(p, p_max, float(p_max.min()), 1 / (1 + n), n)
