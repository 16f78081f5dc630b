"""The noise floor: how often deployment controls are flagged, and which benchmarks are flagged more often than that.

The floor is itself measured with error, so a benchmark is tested against the counts of the deployment controls, not against their rate
as if it were known. A second family of tests compares each benchmark with a fixed rate of 5 %. The p values of each family are corrected
over the benchmarks by Holm's method. The tests need counts of independent transcripts: if samples have several epochs, the counts are
divided by the design effect (Rao and Scott 1992).
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
"""The floor assumed in the literature: the share of a benchmark's transcripts that are flagged by chance."""
DRAWS = 10_000


@dataclass(frozen=True)
class Arm:
    """One benchmark or deployment control: its rate, and its effective counts of flagged (`yes`) and all (`n`) transcripts."""

    rate: Estimate
    yes: int
    n: int


@dataclass(frozen=True)
class Floor:
    """Rate of the pooled deployment controls and of each one, and a test of whether they differ by more than chance."""

    pooled: Arm
    by_control: dict[str, Arm]
    heterogeneity: Test
    """If p is small, the pooled floor mixes different rates, and the deployment control with the highest rate is the fairer floor."""


@dataclass(frozen=True)
class Excess:
    """A benchmark compared with the measured and with the fixed floor."""

    rate: Estimate
    difference: Estimate
    """Rate minus the pooled floor, with Newcombe's interval."""
    over_measured: Test
    over_fixed: Test
    holm_measured: float | None
    """The p value of `over_measured`, corrected over the benchmarks; None if there was no test."""
    holm_fixed: float | None

    @property
    def exceeds(self) -> bool:
        """Whether the rate is above the measured floor after correction."""
        return self.holm_measured is not None and self.holm_measured <= ALPHA


def arm(verdicts: Codes, clusters: Codes | None = None) -> Arm:
    """Return the rate and counts of one benchmark or deployment control.

    `clusters` holds the code of each transcript's sample if samples have several epochs.
    """
    kept = verdicts != MISSING
    flagged = rate(verdicts, clusters)
    if flagged.estimate is None:
        return Arm(flagged, 0, 0)
    values = (verdicts[kept] == YES).astype(np.float64)[:, None]
    size = effective_sizes(values, None if clusters is None else clusters[kept])[0]
    n = max(int(size), 1)
    return Arm(flagged, round(flagged.estimate * n), n)


def pooled_floor(controls: Mapping[str, tuple[Codes, Codes | None]], rng: np.random.Generator) -> Floor:
    """Return the floor measured on deployment controls.

    Args:
        controls: verdicts and sample codes of each deployment control; None in place of codes if every transcript is its own sample.
        rng: draws the tables of the heterogeneity test.

    Raises:
        DataError: no deployment control has a scored transcript; there is no default floor.
    """
    arms = {name: arm(verdicts, clusters) for name, (verdicts, clusters) in controls.items()}
    if not any(control.n for control in arms.values()):
        raise DataError(
            f"{len(arms)} deployment controls have no scored transcript: expected at least one; "
            "run a deployment control (tasks/wildchat.py) with the benchmarks."
        )
    verdicts = np.concatenate([verdicts for verdicts, _ in controls.values()])
    return Floor(arm(verdicts, _pooled_clusters(controls)), arms, _heterogeneity(list(arms.values()), rng))


def _pooled_clusters(controls: Mapping[str, tuple[Codes, Codes | None]]) -> Codes:
    """Return sample codes for all deployment controls together, numbered so that no two controls share a code."""
    parts, start = [], 0
    for verdicts, clusters in controls.values():
        samples = np.arange(len(verdicts)) if clusters is None else np.unique(clusters, return_inverse=True)[1]
        parts.append(samples + start)
        start += int(samples.max(initial=-1)) + 1
    return np.concatenate(parts)


def _heterogeneity(arms: list[Arm], rng: np.random.Generator) -> Test:
    """Test whether the rates of the deployment controls differ: chi-squared, with a p value from random tables with the same margins.

    Apart from the finite number of draws, the p value is exact.
    """
    method = f"chi-squared, {DRAWS:,} random tables with the same margins"
    sizes, yes = np.array([control.n for control in arms]), np.array([control.yes for control in arms])
    n, total = int(sizes.sum()), int(yes.sum())
    if (sizes > 0).sum() < 2 or total in (0, n):
        return Test(None, None, n, method, reason="it needs two scored deployment controls, with both flagged and unflagged transcripts")
    expected = sizes[sizes > 0] * total / n
    scale = 1 - total / n
    drawn = rng.multivariate_hypergeometric(sizes[sizes > 0], total, size=DRAWS, method="marginals")
    statistic = float(((yes[sizes > 0] - expected) ** 2 / expected / scale).sum())
    larger = int((((drawn - expected) ** 2 / expected / scale).sum(axis=1) >= statistic * (1 - 1e-12)).sum())
    return Test(statistic, (1 + larger) / (1 + DRAWS), n, method)


def above_floor(benchmarks: Mapping[str, Arm], floor: Floor, *, fixed: float = FIXED) -> dict[str, Excess]:
    """Test every benchmark against the measured floor (Boschloo) and the fixed one (exact binomial), one-sided and with Holm's correction.

    Both tests are exact: they need no approximation, but their error rate is below the nominal level where counts are small.
    """
    excesses = {name: _excess(benchmark, floor.pooled, fixed) for name, benchmark in benchmarks.items()}
    tested = [name for name, excess in excesses.items() if excess.over_measured.p is not None]
    measured = holm(np.array([excesses[name].over_measured.p for name in tested], dtype=np.float64))
    against_fixed = holm(np.array([excesses[name].over_fixed.p for name in tested], dtype=np.float64))
    for name, first, second in zip(tested, measured, against_fixed, strict=True):
        excesses[name] = replace(excesses[name], holm_measured=float(first), holm_fixed=float(second))
    return excesses


def _excess(benchmark: Arm, floor: Arm, fixed: float) -> Excess:
    if benchmark.n == 0:
        none = Test(None, None, 0, "none", benchmark.rate.n_unscored, "nothing was scored")
        return Excess(benchmark.rate, replace(benchmark.rate, method="Newcombe"), none, none, None, None)
    low, high = confint_proportions_2indep(benchmark.yes, benchmark.n, floor.yes, floor.n, method="newcomb", alpha=ALPHA)
    difference = benchmark.yes / benchmark.n - floor.yes / floor.n
    p, method = exceeds(benchmark.yes, benchmark.n, floor.yes, floor.n)
    measured = Test(difference, p, benchmark.n, method, benchmark.rate.n_unscored)
    p_fixed = float(binomtest(benchmark.yes, benchmark.n, fixed, alternative="greater").pvalue)
    fixed_method = f"exact binomial against {fixed:.3g}, one-sided"
    against = Test(benchmark.yes / benchmark.n - fixed, p_fixed, benchmark.n, fixed_method, benchmark.rate.n_unscored)
    between = Estimate(difference, float(low), float(high), benchmark.n, "Newcombe", benchmark.rate.n_unscored)
    return Excess(benchmark.rate, between, measured, against, None, None)
