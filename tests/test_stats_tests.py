"""The audit's tests against scipy, enumeration and simulation: they hold their level, and the planner's power is the simulated one."""

from functools import cache
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, boschloo_exact, fisher_exact
from statsmodels.stats.contingency_tables import mcnemar

from audit.stats import steering
from audit.stats.bootstrap import bootstrap_mean
from audit.stats.exact import MOST_ITEMS, exceeds, region
from audit.stats.floor import Arm, above_floor, arm, pooled_floor
from audit.stats.paired import against_paraphrase, mcnemar_exact, paired, sign_test
from audit.stats.power import limits, paired_detectable, paired_power, power_over, transcripts_needed
from audit.stats.rates import MISSING, NO, YES, Bools, Codes, rate
from nla.support.errors import ConfigError, DataError


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def yes_or_no(yes: int, n: int) -> Codes:
    return np.where(np.arange(n) < yes, YES, NO)


@pytest.mark.parametrize(("yes", "n", "control_yes", "n_controls"), [(8, 50, 5, 100), (3, 20, 0, 30), (13, 50, 2, 50), (0, 9, 1, 7)])
def test_a_rate_above_the_floor_has_scipys_boschloo_p(yes: int, n: int, control_yes: int, n_controls: int) -> None:
    table = [[yes, control_yes], [n - yes, n_controls - control_yes]]
    p, method = exceeds(yes, n, control_yes, n_controls)
    assert p == pytest.approx(boschloo_exact(table, alternative="greater", n=256).pvalue, rel=1e-3)
    assert "Boschloo" in method
    assert p <= fisher_exact(table, alternative="greater").pvalue + 1e-12


def test_large_tables_get_fishers_p() -> None:
    p, method = exceeds(60, 1000, 150, MOST_ITEMS)
    assert "Fisher" in method
    assert p == pytest.approx(fisher_exact([[60, 150], [940, MOST_ITEMS - 150]], alternative="greater").pvalue)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "n_controls"), [(50, 50), (50, 200), (20, 7)])
def test_the_region_is_where_p_is_small_and_it_never_exceeds_its_level(n: int, n_controls: int) -> None:
    found = region(n, n_controls)
    for control_yes in range(0, n_controls + 1, 3):
        critical = int(found.critical[control_yes])
        assert critical > n or exceeds(critical, n, control_yes, n_controls)[0] <= 0.05 * 1.001
        assert critical == 0 or exceeds(critical - 1, n, control_yes, n_controls)[0] > 0.05 * 0.999
    sizes = [found.power(p, p) for p in np.linspace(0.001, 0.999, 777)]
    assert max(sizes) <= 0.0501
    assert n < 50 or max(sizes) > 0.04


def test_benchmarks_are_compared_with_the_measured_floor_and_the_fixed_one() -> None:
    controls = {"chat": (yes_or_no(2, 60), None), "code": (yes_or_no(3, 40), None)}
    floor = pooled_floor(controls, rng())
    assert (floor.pooled.yes, floor.pooled.n, floor.by_control["chat"].rate) == (5, 100, rate(yes_or_no(2, 60)))
    assert floor.heterogeneity.p is not None
    assert floor.heterogeneity.p > 0.2
    found = above_floor({name: arm(yes_or_no(yes, 50)) for name, yes in {"high": 20, "same": 3, "some": 8}.items()}, floor)
    assert [name for name, one in found.items() if one.exceeds] == ["high", "some"]
    assert found["some"].over_measured.p == pytest.approx(exceeds(8, 50, 5, 100)[0])
    assert found["some"].holm_measured == pytest.approx(2 * exceeds(8, 50, 5, 100)[0])
    assert found["some"].over_fixed.p == pytest.approx(binomtest(8, 50, 0.05, alternative="greater").pvalue)
    assert found["high"].difference.estimate == pytest.approx(0.35)
    assert found["high"].holm_measured == pytest.approx(3 * (found["high"].over_measured.p or 0))


def test_a_floor_needs_a_control_and_a_benchmark_without_a_score_is_no_test() -> None:
    with pytest.raises(DataError, match="no scored transcript"):
        pooled_floor({"chat": (np.full(3, MISSING), None)}, rng())
    floor = pooled_floor({"chat": (yes_or_no(0, 20), None)}, rng())
    assert floor.heterogeneity.reason
    found = above_floor({"none": arm(np.full(3, MISSING)), "all": arm(yes_or_no(20, 20))}, floor)
    assert (found["none"].holm_measured, found["none"].exceeds, found["none"].rate.n_unscored) == (None, False, 3)
    assert found["all"].holm_measured == found["all"].over_measured.p


def test_epochs_count_as_the_independent_transcripts_they_are_worth() -> None:
    samples = np.repeat(np.arange(40), 5)
    same = arm(np.repeat(yes_or_no(10, 40), 5), samples)
    assert 36 <= same.n <= 40
    assert same.yes == round(same.n / 4)
    assert same.rate.n == 200
    floor = pooled_floor({"a": (np.repeat(yes_or_no(10, 40), 5), samples), "b": (np.repeat(yes_or_no(10, 40), 5), samples)}, rng())
    assert 74 <= floor.pooled.n <= 80  # samples of two controls are not the same samples


def test_controls_that_differ_are_told() -> None:
    floor = pooled_floor({"a": (yes_or_no(1, 60), None), "b": (yes_or_no(15, 60), None)}, rng())
    assert floor.heterogeneity.p is not None
    assert floor.heterogeneity.p < 0.01


def test_the_floor_test_holds_its_family_wise_level(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audit.stats.floor.exceeds", cache(exceeds))
    draw, family = rng(), []
    for _ in range(200):
        floor = pooled_floor({"chat": (yes_or_no(int(draw.binomial(100, 0.1)), 100), None)}, draw)
        found = above_floor({str(i): arm(yes_or_no(int(draw.binomial(50, 0.1)), 50)) for i in range(4)}, floor)
        family.append(any(one.exceeds for one in found.values()))
    assert np.mean(family) <= 0.06


PAIRS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40)


@given(PAIRS)
def test_mcnemar_is_statsmodels_exact_and_mid_p(pairs: list[tuple[bool, bool]]) -> None:
    found = mcnemar_exact(*np.array(pairs).T)
    b, c = pairs.count((True, False)), pairs.count((False, True))
    assert (found.only_first, found.only_second) == (b, c)
    assert (found.both, found.neither) == (pairs.count((True, True)), pairs.count((False, False)))
    assert found.p == pytest.approx(mcnemar([[0, b], [c, 0]], exact=True).pvalue if b + c else 1)
    assert found.p_mid == pytest.approx(found.p - binom.pmf(b, b + c, 0.5) if b != c else 1)
    assert found.difference.estimate == pytest.approx((c - b) / len(pairs))


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=9))
@settings(max_examples=60, deadline=None)
def test_items_with_several_seeds_are_flipped_together(sums: list[int]) -> None:
    first = np.concatenate([np.arange(3) < max(-d, 0) for d in sums])
    second = np.concatenate([np.arange(3) < max(d, 0) for d in sums])
    found = mcnemar_exact(first, second, np.repeat(np.arange(len(sums)), 3))
    reached = [abs(sum(s * d for s, d in zip(signs, sums, strict=True))) >= abs(sum(sums)) for signs in product((1, -1), repeat=len(sums))]
    assert found.p == pytest.approx(np.mean(reached))


def test_pairs_without_both_verdicts_are_left_out_and_counted() -> None:
    found = paired(np.array([YES, NO, MISSING, YES]), np.array([NO, YES, YES, MISSING]))
    assert (found.n, found.n_unscored, found.difference.n_unscored) == (2, 2, 2)
    assert paired(np.array([MISSING]), np.array([YES])).difference.reason


def pairs_of(draw: np.random.Generator, only_first: float, only_second: float, n: int) -> tuple[Bools, Bools]:
    drawn = draw.random(n)
    return drawn < only_first, (drawn >= only_first) & (drawn < only_first + only_second)


@pytest.mark.parametrize(("only_first", "only_second"), [(0.3, 0.3), (0.2, 0.05), (0.02, 0.1)])
def test_the_paired_interval_covers(only_first: float, only_second: float) -> None:
    draw = rng()
    found = [mcnemar_exact(*pairs_of(draw, only_first, only_second, 50)).difference for _ in range(2000)]
    covered = np.mean([one.low <= only_second - only_first <= one.high for one in found])  # type: ignore[operator]
    assert 0.93 <= covered <= 0.98


def test_mcnemar_holds_its_level_and_mid_p_comes_closer() -> None:
    levels = {"p": 0.0, "p_mid": 0.0}  # exact, by enumeration: 50 pairs of which each differs with chance 0.6, either way alike
    for discordant in range(51):
        for b in range(discordant + 1):
            signs = np.arange(discordant) < b
            found, chance = mcnemar_exact(signs, ~signs), binom.pmf(discordant, 50, 0.6) * binom.pmf(b, discordant, 0.5)
            levels = {name: level + chance * (getattr(found, name) <= 0.05) for name, level in levels.items()}
    assert levels["p"] <= 0.05
    assert 0.04 <= levels["p_mid"] <= 0.06
    assert levels["p_mid"] > levels["p"], levels


def test_with_three_seeds_an_item_the_paired_test_holds_its_level() -> None:
    draw, items, found = rng(), np.repeat(np.arange(50), 3), []
    for _ in range(2000):
        chances = draw.beta(0.5, 1, (2, 50)).repeat(3, axis=1)
        found.append(mcnemar_exact(*(draw.random((2, 150)) < chances), items))
    assert 0.035 <= np.mean([one.p <= 0.05 for one in found]) <= 0.06
    assert 0.93 <= np.mean([one.difference.low <= 0 <= one.difference.high for one in found]) <= 0.97  # type: ignore[operator]


def test_the_original_cancels_from_the_difference_in_differences() -> None:
    draw = rng()
    original, rewritten, paraphrased = (np.where(draw.random(300) < p, YES, NO) for p in (0.4, 0.2, 0.38))
    rewritten[:20] = MISSING
    found = against_paraphrase(original, rewritten, paraphrased, draw)
    differences = [one.difference.estimate or 0 for one in (found.rewrite, found.paraphrase, found.beyond)]
    assert differences[2] == pytest.approx(differences[0] - differences[1])
    assert (found.bootstrap.estimate, found.n_incomplete, found.rewrite.n) == (pytest.approx(differences[2]), 20, 280)
    ends = (found.beyond.difference.low, found.beyond.difference.high)
    assert (found.bootstrap.low, found.bootstrap.high) == pytest.approx(ends, abs=0.02)
    assert bootstrap_mean(np.ones(5), draw).reason


@pytest.mark.parametrize(("n", "p"), [(6, 1 / 64), (11, 1 / 2048)])
def test_all_evaluations_moving_as_predicted_have_the_exact_sign_test_p(n: int, p: float) -> None:
    found = sign_test(np.append(np.linspace(0.01, 0.3, n), 0.0))
    assert (found.n, found.n_predicted, found.n_ties) == (n, n, 1)
    assert (found.p, found.p_two_sided) == (pytest.approx(p), pytest.approx(2 * p))
    assert sign_test(np.zeros(3)).p == 1


STRENGTHS = np.array([-0.1, -0.05, 0.0, 0.05, 0.1])


def steered(draw: np.random.Generator, n_items: int, slope: float, spread: float) -> tuple[Codes, Codes]:
    items = np.repeat(np.arange(n_items), 5)
    odds = -1.5 + draw.normal(size=n_items)[items] * spread + slope * np.tile(STRENGTHS, n_items)
    return np.where(draw.random(5 * n_items) < 1 / (1 + np.exp(-odds)), YES, NO), items


def test_each_strength_is_compared_with_none_on_the_same_items_and_seeds() -> None:
    verdicts, items = steered(rng(), 30, 10.0, 1.0)
    strengths, order = np.tile(STRENGTHS, 30), rng().permutation(150)
    found = steering.by_strength(verdicts[order], strengths[order], items[order] + 7, np.zeros(150, dtype=np.int64))
    grid = verdicts.reshape(30, 5)
    assert sorted(found) == [-0.1, -0.05, 0.05, 0.1]
    assert found[0.1] == paired(grid[:, 2], grid[:, 4])
    with pytest.raises(DataError, match="expected 0 among them"):
        steering.by_strength(verdicts, strengths + 1, items, items)
    with pytest.raises(DataError, match="twice"):
        steering.by_strength(verdicts, np.zeros(150) + np.tile([0, 0, 0, 1, 1], 30), items, np.zeros(150, dtype=np.int64))


def test_a_trend_is_detected_and_a_missing_one_gives_its_reason() -> None:
    verdicts, items = steered(rng(), 100, 12.0, 1.5)
    found = steering.trend(verdicts, np.tile(STRENGTHS, 100), items)
    assert found.within_items.p is not None
    assert found.within_items.p < 0.001
    assert (found.within_items.statistic or 0) > 0
    assert found.slope is not None
    assert 5 < found.slope < 15
    none = steering.trend(np.full(10, NO), np.tile(STRENGTHS, 2), np.repeat([0, 1], 5))
    assert none.within_items.p is none.slope is None
    assert "flagged and unflagged" in none.within_items.reason


def test_the_trend_within_items_is_a_permutation_test() -> None:
    draw = rng()
    verdicts, items = steered(draw, 25, 4.0, 2.0)
    strengths = np.tile(STRENGTHS, 25)
    found = steering.trend(verdicts, strengths, items).within_items
    grid = (verdicts == YES).reshape(25, 5)
    shuffled = draw.permuted(np.broadcast_to(grid, (4000, 25, 5)), axis=2) @ STRENGTHS
    assert found.statistic == pytest.approx((grid @ STRENGTHS).sum() / shuffled.sum(axis=1).std(), rel=0.05)


@pytest.mark.slow
def test_trends_hold_their_level_where_items_differ() -> None:
    draw, found = rng(), []
    for _ in range(300):
        verdicts, items = steered(draw, 40, 0.0, 2.0)
        found.append(steering.trend(verdicts, np.tile(STRENGTHS, 40), items))
    level = np.mean([(one.within_items.p or 1) <= 0.05 for one in found])
    assert 0.025 <= level <= 0.08, level  # 300 draws: two standard errors around 4 to 6 %


def test_random_directions_give_rank_based_p_values_that_hold_their_level() -> None:
    found = steering.against_random(np.array([0.3 - 0.1, 0.5]), np.array([[0.2, 0.1], [0.0, 0.1], [-0.1, 0.9]]))
    np.testing.assert_allclose(found.p, [2 / 4, 2 / 4])
    assert found.reachable == 1 / 4
    draw = rng()
    drawn = [steering.against_random(all_[0], all_[1:]) for all_ in draw.normal(size=(4000, 20, 3))]
    assert 0.04 <= np.mean([one.p[0] <= 0.05 for one in drawn]) <= 0.06
    with pytest.raises(DataError, match="every direction"):
        steering.against_random(np.zeros(2), np.zeros((3, 1)))
    with pytest.raises(DataError, match="NaN"):
        steering.against_random(np.array([np.nan]), np.zeros((3, 1)))


@pytest.mark.slow
def test_the_planners_power_is_that_of_simulated_audits() -> None:
    draw, p_of = rng(), cache(exceeds)
    for rate_, n, n_controls in ((0.2, 50, 100), (0.12, 120, 60)):
        drawn = zip(draw.binomial(n, rate_, 1000), draw.binomial(n_controls, 0.05, 1000), strict=True)
        found = np.mean([p_of(int(yes), n, int(control), n_controls)[0] <= 0.05 for yes, control in drawn])
        assert power_over(0.05, rate_, n, n_controls) == pytest.approx(found, abs=0.04)
    counts = [binomtest(k, 50, 0.05, alternative="greater").pvalue <= 0.05 for k in range(51)]
    assert power_over(0.05, 0.15, 50) == pytest.approx(binom.pmf(np.arange(51), 50, 0.15) @ counts)
    assert power_over(0.05, 0.05, 50) <= 0.05


def test_limits_say_what_a_run_can_show() -> None:
    found = limits(0.05, 100)
    assert round(found.none_flagged_high, 3) == 0.037
    assert binomtest(found.fewest_flagged, 100, 0.05, alternative="greater").pvalue <= 0.05
    assert binomtest(found.fewest_flagged - 1, 100, 0.05, alternative="greater").pvalue > 0.05
    assert found.detectable_rate is not None
    assert power_over(0.05, found.detectable_rate, 100) >= 0.8 > power_over(0.05, found.detectable_rate - 0.001, 100)
    measured = limits(0.05, 50, 100)
    assert exceeds(measured.fewest_flagged, 50, 5, 100)[0] <= 0.05 < exceeds(measured.fewest_flagged - 1, 50, 5, 100)[0]
    assert limits(0.5, 3).detectable_rate is None


def test_the_number_of_transcripts_needed_is_enough_and_stays_enough() -> None:
    n = transcripts_needed(0.05, 0.15)
    assert n is not None
    assert all(power_over(0.05, 0.15, m) >= 0.8 for m in range(n, n + 300))
    assert power_over(0.05, 0.15, n - 1) < 0.8
    both = transcripts_needed(0.05, 0.2, controls_each=2)
    assert both is not None
    assert power_over(0.05, 0.2, both, 2 * both) >= 0.8
    assert transcripts_needed(0.05, 0.051, most=100) is transcripts_needed(0.05, 0.051, controls_each=1, most=60) is None
    with pytest.raises(ConfigError, match="0 to 1"):
        power_over(5, 0.2, 10)


def test_paired_power_is_that_of_simulated_pairs() -> None:
    draw = rng()
    rejected = [mcnemar_exact(*pairs_of(draw, 0.25, 0.05, 50)).p <= 0.05 for _ in range(2000)]
    assert paired_power(0.25, 0.05, 50) == pytest.approx(np.mean(rejected), abs=0.03)
    difference = paired_detectable(50, 0.3)
    assert difference is not None
    assert paired_power((0.3 + difference) / 2, (0.3 - difference) / 2, 50) >= 0.8
    assert paired_detectable(50, 0.05) is None
    assert paired_power(0, 0, 50) == 0


def test_an_arm_is_its_rate_and_counts() -> None:
    assert arm(yes_or_no(3, 10)) == Arm(rate(yes_or_no(3, 10)), 3, 10)
