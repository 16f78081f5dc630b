"""The noise floor: how often deployment-like controls are flagged, and which benchmarks are flagged more often than that.

The floor is itself measured, so a benchmark is tested against the controls' counts, not against their rate; the fixed 5 % is tested
beside it, as a second family. Each family is corrected over the benchmarks by Holm's method. Tests count independent transcripts:
where samples have several epochs, the counts are divided by the design effect (Rao and Scott 1992).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import binomtest
from statsmodels.stats.proportion import confint_proportions_2indep

from audit.stats.exact import exceeds
from audit.stats.rates import ALPHA, MISSING, YES, Codes, Estimate, Test, effective_sizes, holm, rate
from nla.support.errors import DataError

FIXED = 0.05
"""The floor assumed in the literature: the share of a benchmark's transcripts that is flagged by chance."""
DRAWS = 10_000


@dataclass(frozen=True)
class Arm:
    """The transcripts of one benchmark or deployment control: the rate, and the counts of independent transcripts that tests use."""

    rate: Estimate
    yes: int
    n: int


@dataclass(frozen=True)
class Floor:
    """Rate of the pooled deployment controls and of each one, and whether they differ more than chance allows."""

    pooled: Arm
    by_control: dict[str, Arm]
    heterogeneity: Test
    """With a small p, the pooled floor is a mixture, and the control with the highest rate is the fairer floor."""


@dataclass(frozen=True)
class Excess:
    """A benchmark against the floor."""

    rate: Estimate
    difference: Estimate
    """Rate minus pooled floor, with Newcombe's interval."""
    over_measured: Test
    over_fixed: Test
    holm_measured: float | None
    """The p value of `over_measured`, corrected over the benchmarks; None where there was no test."""
    holm_fixed: float | None

    @property
    def exceeds(self) -> bool:
        """Whether the rate is above the measured floor after correction."""
        return self.holm_measured is not None and self.holm_measured <= ALPHA


def arm(verdicts: Codes, clusters: Codes | None = None) -> Arm:
    """Rate and counts of one benchmark or deployment control; `clusters` holds each transcript's sample if samples have several epochs."""
    kept = verdicts != MISSING
    found = rate(verdicts, clusters)
    if found.estimate is None:
        return Arm(found, 0, 0)
    values = (verdicts[kept] == YES).astype(np.float64)[:, None]
    size = effective_sizes(values, None if clusters is None else clusters[kept])[0]
    n = max(int(size), 1)
    return Arm(found, round(found.estimate * n), n)


def pooled_floor(controls: Mapping[str, tuple[Codes, Codes | None]], rng: np.random.Generator) -> Floor:
    """The floor of deployment controls, each given as verdicts and samples (None: every transcript is a sample of its own).

    Raises:
        DataError: no control has a scored transcript; there is no default floor.
    """
    arms = {name: arm(*given) for name, given in controls.items()}
    if not any(one.n for one in arms.values()):
        raise DataError(
            f"{len(arms)} deployment controls have no scored transcript: expected at least one; "
            "run a deployment control (tasks/wildchat.py) with the benchmarks."
        )
    verdicts = np.concatenate([verdicts for verdicts, _ in controls.values()])
    return Floor(arm(verdicts, _pooled_clusters(controls)), arms, _heterogeneity(list(arms.values()), rng))


def _pooled_clusters(controls: Mapping[str, tuple[Codes, Codes | None]]) -> Codes:
    """Samples of all controls, numbered so that no two controls share one."""
    parts, start = [], 0
    for verdicts, clusters in controls.values():
        own = np.arange(len(verdicts)) if clusters is None else np.unique(clusters, return_inverse=True)[1]
        parts.append(own + start)
        start += int(own.max(initial=-1)) + 1
    return np.concatenate(parts)


def _heterogeneity(arms: list[Arm], rng: np.random.Generator) -> Test:
    """Chi-squared of rates by control, its p value from tables drawn with the same margins (exact but for the draws)."""
    method = f"chi-squared, {DRAWS:,} tables of the same margins"
    sizes, yes = np.array([one.n for one in arms]), np.array([one.yes for one in arms])
    n, total = int(sizes.sum()), int(yes.sum())
    if (sizes > 0).sum() < 2 or total in (0, n):
        return Test(None, None, n, method, reason="it needs two controls, and both verdicts among them")
    expected = sizes[sizes > 0] * total / n
    scale = 1 - total / n
    drawn = rng.multivariate_hypergeometric(sizes[sizes > 0], total, size=DRAWS, method="marginals")
    statistic = float(((yes[sizes > 0] - expected) ** 2 / expected / scale).sum())
    larger = int((((drawn - expected) ** 2 / expected / scale).sum(axis=1) >= statistic * (1 - 1e-12)).sum())
    return Test(statistic, (1 + larger) / (1 + DRAWS), n, method)


def above_floor(benchmarks: Mapping[str, Arm], floor: Floor, *, fixed: float = FIXED) -> dict[str, Excess]:
    """Every benchmark against the measured floor (Boschloo) and the fixed one (exact binomial), both one-sided, with Holm's correction.

    Both tests are exact, so they keep below their level where counts are small; that is the price of a claim without
    approximation.
    """
    found = {name: _excess(one, floor.pooled, fixed) for name, one in benchmarks.items()}
    tested = [name for name, one in found.items() if one.over_measured.p is not None]
    measured = holm(np.array([found[name].over_measured.p for name in tested], dtype=np.float64))
    against_fixed = holm(np.array([found[name].over_fixed.p for name in tested], dtype=np.float64))
    for name, first, second in zip(tested, measured, against_fixed, strict=True):
        found[name] = replace(found[name], holm_measured=float(first), holm_fixed=float(second))
    return found


def _excess(one: Arm, floor: Arm, fixed: float) -> Excess:
    if one.n == 0:
        none = Test(None, None, 0, "none", one.rate.n_unscored, "nothing was scored")
        return Excess(one.rate, replace(one.rate, method="Newcombe"), none, none, None, None)
    low, high = confint_proportions_2indep(one.yes, one.n, floor.yes, floor.n, method="newcomb", alpha=ALPHA)
    difference = one.yes / one.n - floor.yes / floor.n
    p, method = exceeds(one.yes, one.n, floor.yes, floor.n)
    measured = Test(difference, p, one.n, method, one.rate.n_unscored)
    p_fixed = float(binomtest(one.yes, one.n, fixed, alternative="greater").pvalue)
    against = Test(one.yes / one.n - fixed, p_fixed, one.n, f"exact binomial against {fixed:.3g}, one-sided", one.rate.n_unscored)
    between = Estimate(difference, float(low), float(high), one.n, "Newcombe", one.rate.n_unscored)
    return Excess(one.rate, between, measured, against, None, None)
