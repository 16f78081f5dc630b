"""Rates, curves and corrections against closed forms, enumeration and simulation: intervals cover, corrections are unbiased."""

import math
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import betabinom, binom
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from audit.stats import rates as stats
from audit.stats.correction import GraderError, corrected
from audit.stats.rates import MISSING, NO, YES, Codes, Estimate, Floats
from audit.stats.tokens import TokenCounts, any_of_k_curve, chance_of_flag, token_rate
from graders.base import Verdict
from nla.support.errors import DataError

DRAWS = 2000


def covers(found: Estimate, truth: float) -> bool:
    assert found.low is not None
    assert found.high is not None
    return found.low <= truth <= found.high


def yes_or_no(yes: int, n: int) -> Codes:
    return np.where(np.arange(n) < yes, YES, NO)


def of_tokens(yes: Codes, k: int = 50) -> TokenCounts:
    return TokenCounts(yes, np.full(len(yes), k), np.zeros(len(yes), dtype=np.int64))


@pytest.mark.parametrize(
    ("yes", "n", "low", "high"), [(2, 50, 0.011, 0.135), (13, 50, 0.159, 0.396), (5, 100, 0.022, 0.112), (0, 100, 0.0, 0.037)]
)
def test_published_counts_have_their_published_intervals(yes: int, n: int, low: float, high: float) -> None:
    found = stats.rate(yes_or_no(yes, n))
    assert found.estimate == yes / n
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.0005)
    z, p = 1.959963984540054, yes / n
    middle, half = (p + z * z / (2 * n)) / (1 + z * z / n), z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert (found.low, found.high) == pytest.approx((middle - half, middle + half), abs=1e-12)


@pytest.mark.parametrize(("p", "exact"), [(0.02, 0.9216), (0.1, 0.9703), (0.5, 0.9351)])
def test_wilson_covers_as_often_as_enumeration_says(p: float, exact: float) -> None:
    intervals = [stats.wilson(yes, 50) for yes in range(51)]
    inside = np.array([covers(one, p) for one in intervals])
    assert binom.pmf(np.arange(51), 50, p) @ inside == pytest.approx(exact, abs=5e-5)
    drawn = np.random.default_rng(0).binomial(50, p, DRAWS)
    assert abs(inside[drawn].mean() - exact) < 0.02
    if p != 0.02:
        assert 0.93 <= round(inside[drawn].mean(), 2) <= 0.97


def test_at_a_rate_of_2_percent_no_interval_of_a_count_can_cover_93_to_97_percent() -> None:
    chances = binom.pmf(np.arange(51), 50, 0.02)
    of_ranges = np.array([chances[first:last].sum() for first, last in combinations(range(52), 2)])
    assert not ((of_ranges >= 0.93) & (of_ranges <= 0.97)).any()
    rates = np.linspace(0.01, 0.03, 201)
    for method, low, high in (("wilson", 0.945, 0.955), ("jeffreys", 0.965, 0.98), ("beta", 0.975, 0.99)):
        lows, highs = proportion_confint(np.arange(51), 50, method=method)
        average = np.mean([binom.pmf(np.arange(51), 50, p) @ ((lows <= p) & (p <= highs)) for p in rates])
        assert low < average < high, (method, average)


@pytest.mark.parametrize("p", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("correlation", [0.02, 0.3, 0.9])
def test_clustered_intervals_cover_with_four_epochs_a_sample(p: float, correlation: float) -> None:
    draw, samples, size = np.random.default_rng(1), np.repeat(np.arange(50), 4), 1 / correlation - 1
    chances = draw.beta(p * size, (1 - p) * size, (DRAWS, 50)).repeat(4, axis=1)
    found = [stats.mean(row.astype(np.float64), samples) for row in draw.binomial(1, chances)]
    assert 0.93 <= np.mean([covers(one, p) for one in found]) <= (0.97 if p > 0.02 else 0.985)


@pytest.mark.parametrize(("p", "correlation"), [(0.02, 0.02), (0.02, 0.05), (0.1, 0.05), (0.1, 0.2), (0.5, 0.2)])
def test_the_token_rate_covers_where_tokens_of_a_transcript_correlate(p: float, correlation: float) -> None:
    size = 1 / correlation - 1
    drawn = betabinom.rvs(50, p * size, (1 - p) * size, size=(DRAWS, 50), random_state=np.random.default_rng(2))
    found = [token_rate(of_tokens(row)) for row in drawn]
    assert np.mean([one.estimate for one in found]) == pytest.approx(p, rel=0.03)
    assert 0.93 <= np.mean([covers(one, p) for one in found]) <= 0.97


def test_epochs_that_agree_count_once_and_those_that_do_not_count_fully() -> None:
    samples = np.repeat(np.arange(100), 5)
    agreeing = np.repeat(yes_or_no(20, 100), 5)
    alone, repeated = stats.rate(agreeing[::5]), stats.rate(agreeing, samples)
    assert (repeated.n, repeated.estimate) == (500, 0.2)
    assert (repeated.low, repeated.high) == pytest.approx((alone.low, alone.high), abs=0.004)
    mixed = np.random.default_rng(0).permutation(agreeing)
    assert stats.effective_sizes((mixed == YES).astype(np.float64)[:, None], samples)[0] > 300
    assert stats.effective_sizes(np.zeros((500, 1)), samples)[0] == 100
    assert stats.rate(np.full(500, NO), samples).high == pytest.approx(stats.wilson(0, 100).high)


def test_the_variance_is_statsmodels_cluster_robust_one() -> None:
    import statsmodels.api as sm

    draw = np.random.default_rng(3)
    samples = np.sort(draw.integers(0, 60, 400))
    values = draw.binomial(1, draw.beta(1, 1, 60)[samples]).astype(np.float64)
    fit = sm.OLS(values, np.ones(400)).fit(cov_type="cluster", cov_kwds={"groups": samples, "use_correction": False})
    n_samples, rate = len(np.unique(samples)), values.mean()
    unshrunk = rate * (1 - rate) / (fit.bse[0] ** 2 * n_samples / (n_samples - 1))
    assert 0.9 < stats.effective_sizes(values[:, None], samples)[0] / unshrunk < 1


@given(st.lists(st.tuples(st.integers(-1, 2), st.integers(0, 5)), min_size=1, max_size=60))
def test_a_rate_counts_only_yes_and_keeps_what_is_unscored_apart(rows: list[tuple[int, int]]) -> None:
    verdicts, samples = (np.array(column) for column in zip(*rows, strict=True))
    scored = [verdict for verdict, _ in rows if verdict != MISSING]
    for found in (stats.rate(verdicts), stats.rate(verdicts, samples)):
        assert (found.n, found.n_unscored) == (len(scored), len(rows) - len(scored))
        assert found.estimate == (pytest.approx(scored.count(YES) / len(scored)) if scored else None)
        assert found.estimate is None or -1e-12 <= found.low <= found.estimate + 1e-12 <= found.high + 2e-12 <= 1 + 3e-12  # type: ignore[operator]
    found_bounds = stats.bounds(verdicts)
    n_yes, n_missing = list(verdicts).count(YES), len(rows) - len(scored)
    assert found_bounds.all_no.estimate == pytest.approx(n_yes / len(rows))
    assert found_bounds.all_yes.estimate == pytest.approx((n_yes + n_missing) / len(rows))


def test_codes_are_those_of_the_verdicts() -> None:
    assert stats.codes([Verdict.YES, Verdict.NO, Verdict.UNCLEAR, None]).tolist() == [YES, NO, 2, MISSING]


def brute_force(yes: int, n: int, k: int) -> float:
    subsets = list(combinations([True] * yes + [False] * (n - yes), min(k, n)))
    return sum(map(any, subsets)) / len(subsets)


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8), st.integers(0, 3)), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_the_curve_is_the_average_over_all_subsets_of_tokens(rows: list[tuple[int, int, int]]) -> None:
    yes, other, unscored = (np.array(column) for column in zip(*rows, strict=True))
    counts = TokenCounts(yes, yes + other, unscored)
    found = chance_of_flag(counts, range(1, 11))
    for row, y, n in zip(found, yes, yes + other, strict=True):
        expected = [brute_force(y, n, k) for k in range(1, 11)] if n else [math.nan] * 10
        np.testing.assert_allclose(row, expected, atol=1e-12)
    curve = any_of_k_curve(counts, ks=range(1, 11))
    if (counts.scored > 0).any():
        rates = [point.rate.estimate or 0 for point in curve]
        assert all(after >= before - 1e-12 for before, after in pairwise(rates))
        if counts.scored.max() <= 10:
            flagged = stats.rate(counts.flags)
            assert (curve[-1].rate.estimate, curve[-1].rate.n_unscored) == (pytest.approx(flagged.estimate), flagged.n_unscored)
    assert [point.n_short for point in curve] == [int(((counts.scored > 0) & (counts.scored < k)).sum()) for k in range(1, 11)]


def test_the_ends_of_the_curve_are_the_token_rate_and_the_flagged_rate() -> None:
    counts = of_tokens(np.random.default_rng(0).binomial(50, 0.02, 200))
    curve = any_of_k_curve(counts)
    first, tokens = curve[0].rate, token_rate(counts)
    assert (first.estimate, first.low, first.high) == pytest.approx((tokens.estimate, tokens.low, tokens.high))
    assert curve[-1].rate.estimate == pytest.approx(stats.rate(counts.flags).estimate)
    assert curve[-1].rate.method == "Wilson"


def test_a_transcript_is_flagged_by_any_yes_and_missing_without_a_verdict() -> None:
    counts = TokenCounts(np.array([1, 0, 0, 0]), np.array([2, 0, 2, 0]), np.array([1, 0, 0, 1]))
    assert counts.flags.tolist() == [YES, MISSING, NO, MISSING]
    with pytest.raises(DataError, match="at least 1"):
        chance_of_flag(counts, [0])


@pytest.mark.parametrize("values", [np.zeros(0), np.full(3, np.nan)])
def test_nothing_scored_is_no_rate_and_says_why(values: Floats) -> None:
    found = stats.mean(values)
    assert (found.estimate, found.low, found.reason) == (None, None, "nothing was scored")
    empty = np.zeros(0, dtype=np.int64)
    assert any_of_k_curve(TokenCounts(empty, empty, empty))[0].rate.estimate is None


@pytest.mark.parametrize(
    ("truth", "n", "sensitivity", "n_yes", "specificity", "n_other"),
    [(0.1, 200, 0.9, 100, 0.98, 300), (0.3, 50, 0.85, 100, 0.95, 100), (0.02, 500, 0.9, 50, 0.99, 200)],
)
def test_the_corrected_rate_is_unbiased_and_its_intervals_cover(
    truth: float, n: int, sensitivity: float, n_yes: int, specificity: float, n_other: int
) -> None:
    draw = np.random.default_rng(4)
    seen = truth * sensitivity + (1 - truth) * (1 - specificity)
    counts = zip(
        draw.binomial(n, seen, DRAWS), draw.binomial(n_yes, sensitivity, DRAWS), draw.binomial(n_other, 1 - specificity, DRAWS), strict=True
    )
    found = [corrected(yes / n, n, GraderError(hits, n_yes, alarms, n_other), draw, draws=500) for yes, hits, alarms in counts]
    estimates = np.array([one.delta.estimate for one in found], dtype=np.float64)
    assert abs(estimates.mean() - truth) < 3 * estimates.std() / DRAWS**0.5 + 0.001
    for kind in ("delta", "bootstrap"):
        assert 0.93 <= np.mean([covers(getattr(one, kind), truth) for one in found]) <= 0.98, kind


def test_a_rate_below_the_false_alarms_is_kept_below_zero_and_shown_as_zero() -> None:
    found = corrected(0.0, 100, GraderError(90, 100, 5, 100), np.random.default_rng(0))
    assert found.delta.estimate == found.bootstrap.estimate == pytest.approx(-0.05 / 0.85)
    assert (found.shown.estimate, found.shown.low) == (0, 0)
    assert 0 < found.shown.high < 0.06  # type: ignore[operator]


@pytest.mark.parametrize("error", [GraderError(0, 0, 1, 100), GraderError(9, 10, 0, 0), GraderError(50, 100, 45, 100)])
def test_a_grader_that_is_not_shown_to_work_corrects_nothing(error: GraderError) -> None:
    found = corrected(0.3, 100, error, np.random.default_rng(0))
    assert found.delta.estimate is found.shown.estimate is None
    assert found.delta.reason
    with pytest.raises(DataError, match="more hits"):
        GraderError(5, 4, 0, 1)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(max_examples=4, deadline=None)
def test_holm_is_that_of_statsmodels(p_values: list[float]) -> None:
    expected = multipletests(p_values, method="holm")[1]
    np.testing.assert_allclose(stats.holm(np.array(p_values)), expected, atol=1e-15)


def test_holm_refuses_a_test_that_was_not_made() -> None:
    with pytest.raises(DataError, match="NaN"):
        stats.holm(np.array([0.1, np.nan]))
    assert len(stats.holm(np.zeros(0))) == 0


def test_holm_keeps_the_family_wise_error() -> None:
    draw = np.random.default_rng(5)
    independent = draw.random((4000, 6))
    rejected = np.mean([(stats.holm(row) <= 0.05).any() for row in independent])
    assert 0.04 <= rejected <= 0.06
    strong = independent.copy()
    strong[:, :3] = 1e-9  # three true effects: the other three keep their error
    assert 0.04 <= np.mean([(stats.holm(row)[3:] <= 0.05).any() for row in strong]) <= 0.06
