"""AUROCs, correlations, thresholds and matching: equal to scikit-learn and scipy on simulated data, with intervals that cover."""

import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.stats import norm, pearsonr, rankdata, spearmanr
from sklearn.metrics import precision_score, roc_auc_score

from audit.stats.auroc import CONSTANT, Group, auroc_difference, auroc_interval, auroc_of_groups, auroc_of_pairs
from audit.stats.bootstrap import cluster_weights
from audit.stats.correlation import correlation
from audit.stats.matching import matched_pairs
from audit.stats.rates import wilson
from audit.stats.thresholds import precision, share_above, threshold
from graders.calibration import exceeded_by
from nla.organisms.statistics import auroc_over_prompts, resampled_aurocs


def group(scores: np.ndarray, items: np.ndarray | None = None) -> Group:
    return Group(scores, np.arange(len(scores)) if items is None else items)


def simulated(n: int = 60, m: int = 45, shift: float = 0.8, digits: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    return rng.normal(shift, 1, n).round(digits), rng.normal(0, 1, m).round(digits)


def labels(n: int, m: int) -> np.ndarray:
    return np.r_[np.ones(n), np.zeros(m)]


def test_the_auroc_with_ties_is_scikit_learns_and_so_is_that_of_every_resample() -> None:
    a, b = simulated()
    assert auroc_of_groups(group(a), group(b)).estimate == pytest.approx(roc_auc_score(labels(60, 45), np.r_[a, b]))
    first, second = cluster_weights(60, ("a",), 20), cluster_weights(45, ("b",), 20)
    weighted = [roc_auc_score(labels(60, 45), np.r_[a, b], sample_weight=np.r_[first[:, i], second[:, i]]) for i in range(20)]
    assert resampled_aurocs(a, b, first, second) == pytest.approx(weighted)


def test_the_interval_of_clustered_transcripts_is_that_of_a_plain_bootstrap_over_items() -> None:
    a, b = simulated(80, 60)
    items, others = np.repeat(np.arange(20), 4), np.repeat(np.arange(20), 3)
    a, b = a + 2 * np.sin(items), b + 2 * np.cos(others)  # items differ, so that transcripts of one are alike
    found = auroc_of_groups(group(a, items), group(b, others))
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(500):
        rows = np.concatenate([np.flatnonzero(items == item) for item in rng.integers(0, 20, 20)])
        controls = np.concatenate([np.flatnonzero(others == item) for item in rng.integers(0, 20, 20)])
        draws.append(roc_auc_score(labels(len(rows), len(controls)), np.r_[a[rows], b[controls]]))
    low, high = np.percentile(draws, [2.5, 97.5])
    assert (found.low, found.high) == (pytest.approx(low, abs=0.03), pytest.approx(high, abs=0.03))
    assert found.low <= low + 0.01  # type: ignore[operator]
    assert found.high >= high - 0.01  # type: ignore[operator]
    plain = auroc_of_groups(group(a), group(b))
    assert plain.high - plain.low < found.high - found.low  # type: ignore[operator]
    assert (found.n, found.n_unscored) == (80, 0)


def test_pairs_of_the_same_items_have_a_narrower_interval_than_two_groups() -> None:
    rng = np.random.default_rng(0)
    level = rng.normal(0, 3, 50)
    cued, others = level + rng.normal(0.6, 0.3, 50), level + rng.normal(0, 0.3, 50)
    paired, apart = auroc_of_pairs(group(cued), group(others)), auroc_of_groups(group(cued), group(others))
    assert paired.estimate == apart.estimate == pytest.approx(roc_auc_score(labels(50, 50), np.r_[cued, others]))
    assert paired.high - paired.low < (apart.high - apart.low) / 2  # type: ignore[operator]
    assert paired.low > 0.5 > apart.low  # type: ignore[operator]


def test_the_interval_of_few_pairs_holds_its_estimate() -> None:
    """Only partners differ, so an AUROC is 0.5 + 0.5 * (sum of squared draws) / n^2, and no resample has a smaller sum than the data."""
    others = np.arange(8.0)
    cued = others + 0.1
    draws = [np.random.default_rng(i).multinomial(8, np.full(8, 1 / 8)) for i in range(400)]
    resamples = [0.5 + 0.5 * (drawn @ drawn) / 64 for drawn in draws]
    assert np.percentile(resamples, 2.5) > 36 / 64
    for found in (auroc_of_pairs(group(cued), group(others)), auroc_over_prompts(cued, others, [str(i) for i in range(8)])):
        assert found.low == found.estimate == pytest.approx(36 / 64)
        assert found.high == pytest.approx(np.percentile(resamples, 97.5), abs=0.05)


def test_the_difference_of_two_aurocs_uses_the_same_resamples() -> None:
    rng = np.random.default_rng(1)
    shared = rng.normal(size=120) + labels(60, 60)
    both = np.stack([shared + 0.1 * rng.normal(size=120), shared + 0.1 * rng.normal(size=120)], axis=1)
    found = auroc_difference(group(both[:60]), group(both[60:]))
    expected = roc_auc_score(labels(60, 60), both[:, 0]) - roc_auc_score(labels(60, 60), both[:, 1])
    assert found.estimate == pytest.approx(expected)
    assert found.high - found.low < 0.1  # type: ignore[operator]
    alone = auroc_of_groups(group(both[:60, 0]), group(both[60:, 0]))
    assert alone.high - alone.low > 0.15  # type: ignore[operator]
    same = auroc_difference(group(both[:60, [0, 0]]), group(both[60:, [0, 0]]))
    assert (same.estimate, same.low, same.high) == (0, 0, 0)


def test_intervals_of_an_auroc_cover_93_to_97_percent_at_n_50() -> None:
    rng = np.random.default_rng(0)
    truth = norm.cdf(0.74 / 2**0.5)
    found = [auroc_of_groups(group(rng.normal(0.74, 1, 50)), group(rng.normal(0, 1, 50)), 300) for _ in range(2_000)]
    assert 0.93 <= np.mean([one.low <= truth <= one.high for one in found]) <= 0.97  # type: ignore[operator]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pearson", "spearman"])
def test_intervals_of_a_correlation_cover_93_to_97_percent_at_n_50(kind: str) -> None:
    rng = np.random.default_rng(0)
    truth = 0.5 if kind == "pearson" else 6 / np.pi * np.arcsin(0.25)
    hits = 0
    for _ in range(2_000):
        x = rng.normal(size=50)
        found = correlation(x, 0.5 * x + 0.75**0.5 * rng.normal(size=50), np.arange(50), kind, draws=300)  # type: ignore[arg-type]
        hits += found.low <= truth <= found.high  # type: ignore[operator]
    assert 0.93 <= hits / 2_000 <= 0.97


def test_intervals_of_a_share_above_a_threshold_cover_92_to_99_percent_at_n_50() -> None:
    rng = np.random.default_rng(0)
    by_count = [share_above(np.r_[np.ones(k), np.zeros(50 - k)], np.arange(50), 0.5) for k in range(51)]
    for shift in (0.0, 1.0, 2.0):
        truth = norm.sf(1.645 - shift)
        found = [by_count[k] for k in (rng.normal(shift, 1, (2_000, 50)) > 1.645).sum(axis=1)]
        assert 0.92 <= np.mean([one.low <= truth <= one.high for one in found]) <= 0.99  # type: ignore[operator]


def test_correlations_are_scipys_pooled_and_within_groups() -> None:
    rng = np.random.default_rng(2)
    groups, items = np.repeat([0, 1, 2], [40, 30, 20]), np.arange(90)
    x = (rng.normal(size=90) + 5 * groups).round(1)
    y = (0.5 * (x - 5 * groups) + rng.normal(size=90) - 4 * groups).round(1)
    assert correlation(x, y, items, "pearson").estimate == pytest.approx(pearsonr(x, y).statistic)
    assert correlation(x, y, items, "spearman").estimate == pytest.approx(spearmanr(x, y).statistic)

    def by_group(values: np.ndarray, transform: object) -> np.ndarray:
        out = np.empty(90)
        for code in range(3):
            part = values[groups == code]
            part = rankdata(part) / len(part) if transform == "rank" else part
            out[groups == code] = part - part.mean()
        return out

    for kind, transform in (("pearson", "centre"), ("spearman", "rank")):
        within = correlation(x, y, items, kind, groups)  # type: ignore[arg-type]
        assert within.estimate == pytest.approx(pearsonr(by_group(x, transform), by_group(y, transform)).statistic)
        assert within.low > 0  # type: ignore[operator]
    assert correlation(x, y, items, "pearson").estimate < -0.5, "the benchmarks' own levels run the other way"  # type: ignore[operator]


def test_resampled_spearman_ranks_every_resample_anew() -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=30).round(1)
    y = (x + rng.normal(size=30)).round(1)
    found = correlation(x, y, np.arange(30), "spearman", draws=400)
    weights = cluster_weights(30, ("correlation",), 400)
    rows = [np.repeat(np.arange(30), weights[:, i].astype(int)) for i in range(400)]
    draws = [spearmanr(x[picked], y[picked]).statistic for picked in rows]
    low, high = np.percentile(draws, [2.5, 97.5])
    assert (found.low, found.high) == (pytest.approx(low, abs=0.04), pytest.approx(high, abs=0.04))
    assert found.low < low < high < found.high  # type: ignore[operator]


def test_constant_scores_have_auroc_one_half_and_no_correlation() -> None:
    flat, varied = np.full(20, 3.0), np.arange(20.0)
    found = auroc_of_groups(group(flat), group(flat))
    assert (found.estimate, found.low, found.high, found.reason) == (0.5, None, None, CONSTANT)
    for kind in ("pearson", "spearman"):
        undefined = correlation(flat, varied, np.arange(20), kind)  # type: ignore[arg-type]
        assert (undefined.estimate, undefined.low) == (None, None)
        assert undefined.reason == "the first measure is constant, so it correlates with nothing"
    stepped = np.repeat([1.0, 2.0], 10)
    within = correlation(stepped, varied, np.arange(20), "pearson", np.repeat([0, 1], 10))
    assert within.reason == "the first measure is constant within every benchmark, so it correlates with nothing"
    rare = correlation(np.eye(20)[0], varied, np.arange(20), "pearson")
    assert rare.estimate is not None
    assert (rare.low, "undefined in 3" in rare.reason) == (None, True)  # in exp(-1) of the resamples the one transcript is missing
    assert correlation(varied[:2], varied[:2], np.arange(2), "pearson").reason == "2 transcripts are too few for a correlation"
    assert auroc_of_groups(group(varied[:0]), group(varied)).estimate is None
    assert auroc_difference(group(np.ones((0, 2))), group(np.ones((3, 2)))).estimate is None


def test_thresholds_are_exceeded_by_at_most_their_share_of_deployment() -> None:
    rng = np.random.default_rng(0)
    for n in (1, 7, 20, 100, 101):
        for scores in (rng.normal(size=n), rng.integers(0, 3, n).astype(float)):
            for share in (0.05, 0.1):
                limit = exceeded_by(scores, share)
                assert (scores > limit).mean() <= share
                lower = scores[scores < limit]
                assert not len(lower) or (scores > lower.max()).mean() > share
    deployment, cases = rng.normal(size=200), rng.normal(1, 1, 80)
    found = threshold(deployment, np.arange(200), 0.05)
    above = share_above(cases, np.arange(80), found.score, n_unscored=3)
    assert (above.low, above.high) == pytest.approx(
        (wilson(int((cases > found.score).sum()), 80).low, wilson(int((cases > found.score).sum()), 80).high)
    )
    assert (above.n, above.n_unscored, found.above.n) == (80, 3, 200)


def test_precision_is_scikit_learns_in_traffic_of_that_prevalence() -> None:
    sensitivity, false_positives = wilson(40, 50), wilson(5, 100)
    found = precision(sensitivity, false_positives, 0.1)
    truth, flags = labels(100, 900), np.r_[np.ones(80), np.zeros(20), np.ones(45), np.zeros(855)]
    assert found.estimate == pytest.approx(precision_score(truth, flags))
    assert 0 < found.low < found.estimate < found.high < 1  # type: ignore[operator]
    clean = precision(sensitivity, wilson(0, 20), 0.01)
    assert (clean.estimate, clean.low < 0.1) == (1.0, True)  # type: ignore[operator]
    assert precision(wilson(0, 50), wilson(0, 100), 0.05).reason == "nothing is above the threshold"
    assert precision(wilson(0, 0), wilson(0, 100), 0.05).estimate is None


def test_matching_is_optimal_without_replacement_and_within_the_limit() -> None:
    rng = np.random.default_rng(0)
    distances = rng.uniform(0, 1, (9, 7))
    rows, columns = matched_pairs(distances, 1.0, np.random.default_rng(1))
    cover = np.zeros((16, 63))
    for i in range(9):
        for j in range(7):
            cover[i, i * 7 + j] = cover[9 + j, i * 7 + j] = 1
    most = 10.0  # reward of a pair, so that the linear programme forms as many as possible
    best = linprog((distances - most).ravel(), A_ub=cover, b_ub=np.ones(16)).fun
    assert distances[rows, columns].sum() - most * len(rows) == pytest.approx(best)
    assert (len(rows), len(set(rows)), len(set(columns))) == (7, 7, 7)
    rows, columns = matched_pairs(distances, 0.1, np.random.default_rng(1))
    assert (distances[rows, columns] <= 0.1).all()
    assert 0 < len(rows) < 7
    assert len(matched_pairs(np.full((3, 2), np.inf), 1.0, np.random.default_rng(0))[0]) == 0


def test_the_interval_of_controls_is_a_little_wider_than_the_plain_percentiles() -> None:
    a, b = simulated(50, 50)
    found = auroc_interval(a, b, ("x",))
    assert (found.n, found.n_controls) == (50, 50)
    assert 0.5 < found.low < found.estimate < found.high < 1
