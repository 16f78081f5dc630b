"""Does awareness change the own score? Paired differences, detection limits and associations against scipy, statsmodels and numpy."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from audit.analysis.analyze import analyze_tables
from audit.analysis.compare import compare
from audit.analysis.score_change import score_changes
from audit.analysis.score_change_record import ScoreChange
from audit.analysis.score_rows import COLUMNS
from audit.analysis.tables import check_identity, steering_unit
from audit.config import CONFIG_FILE, AuditConfig, keep_config, make_audit, stored_config
from audit.stats.association import association
from audit.stats.paired_scores import paired_scores
from audit.stats.power import paired_power
from audit.terminal import result_table
from nla.support.errors import ConfigError, DataError
from reports.words import summary
from tests.test_audit_run import transcripts
from tests.test_terminal import shown

MATCHED = {"-0.2": {f"unrelated-{i}": -0.25 for i in range(1, 6)}}


def config(**changes: object) -> AuditConfig:
    return make_audit({"model": "local/m", "tasks": ["exam"], "steer": [-0.2], "matched": MATCHED} | changes, "test")


def steered_rows(base: pd.DataFrame, direction: str, strength: float, own: np.ndarray, loss: float = 0.2) -> pd.DataFrame:
    names = {"condition": f"{direction}{strength:+g}", "direction": direction, "strength": strength}
    return base.assign(**names, own_score=own, mean_logprob=base.mean_logprob - loss)


def simulated(seed: int, effect: float, n: int = 200, scale: float = 1.0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Transcripts of one benchmark with base accuracy .6; steering away loses `effect` more than unrelated contrasts, which lose .1."""
    rng = np.random.default_rng(seed)
    table = transcripts(n)
    base = table[table.task == "exam"].assign(own_score=(rng.random(n) < 0.6) * scale, steer_unit=None)
    lost = (rng.random(n) < 0.1 + effect, *(rng.random(n) < 0.1 for _ in range(10)))
    after = [np.where(gone, 0.0, base.own_score) for gone in lost]
    away = steered_rows(base, "awareness", -0.2, after[0]).assign(steer_unit="mean_norm")
    controls = [
        steered_rows(base, f"unrelated-{1 + i % 5}", -0.2 if i < 5 else -0.25, own)[list(COLUMNS)] for i, own in enumerate(after[1:])
    ]
    return pd.concat([base, away], ignore_index=True), pd.concat(controls, ignore_index=True)


def change(rows: pd.DataFrame, scores: pd.DataFrame | None, **changes: object) -> ScoreChange:
    return score_changes(rows, scores, config(**changes), lambda _cell, _base: "")["exam"]


def test_a_score_that_only_steering_away_lowers_is_inflated_beyond_controls() -> None:
    rows, scores = simulated(1, 0.3)
    found = change(rows, scores)
    own = {name: cell.own_score.to_numpy(float) for name, cell in rows.groupby("condition")}
    same = np.mean([cell.own_score.to_numpy(float) for _, cell in scores[scores.strength == -0.2].groupby("condition")], axis=0)
    [at] = found.strengths
    truth = same - own["awareness-0.2"]
    interval = stats.t.interval(0.95, len(truth) - 1, truth.mean(), stats.sem(truth))
    assert at.same_strength is not None
    difference = at.same_strength.inflation.difference
    assert (difference.estimate, difference.low, difference.high) == pytest.approx((truth.mean(), *interval))
    assert at.same_strength.inflation.p == pytest.approx(stats.ttest_1samp(truth, 0).pvalue)
    effect = TTestPower().solve_power(nobs=len(truth), alpha=0.05, power=0.8, alternative="two-sided")
    assert at.same_strength.inflation.detectable == pytest.approx(effect * truth.std(ddof=1), rel=1e-3)
    assert at.against_base.difference.estimate == pytest.approx((own["base"] - own["awareness-0.2"]).mean())
    assert at.against_base.p == pytest.approx(stats.binomtest(0, int((own["base"] != own["awareness-0.2"]).sum())).pvalue)
    assert (at.same_strength.rank_p, at.same_strength.rank_p_reachable) == pytest.approx((1 / 6, 1 / 6))
    assert at.same_strength.loss.estimate == pytest.approx(0.2)
    assert at.matched is not None
    assert at.matched.controls == [f"unrelated-{i}:-0.25" for i in range(1, 6)]
    assert (found.verdict, found.headline) == ("inflated", -0.2)
    shift = at.matched.inflation.difference
    figures = f"{100 * shift.estimate:.1f} points [{100 * shift.low:.1f}, {100 * shift.high:.1f}]"
    assert f"Own score inflated by {figures} beyond controls" in found.sentence


def test_where_steering_does_no_more_than_its_controls_no_difference_is_claimed() -> None:
    verdicts = []
    for seed in range(8):
        rows, scores = simulated(seed, 0.0)
        found = change(rows, scores)
        verdicts.append(found.verdict)
        if found.verdict == "none":
            assert "No difference in the own score was found" in found.sentence
            assert "would be found with 80 % power" in found.sentence
        else:  # one of the two intervals leaves out 0
            assert (found.verdict, "the comparisons disagree" in found.sentence) == ("unknown", True)
    assert not {"inflated", "deflated"} & set(verdicts)  # two comparisons must agree, so fewer than 5 % are false
    assert verdicts.count("none") >= 6
    rows, scores = simulated(3, -0.09)  # controls lower the score and steering away does not
    swapped = scores.assign(own_score=scores.own_score * (np.arange(len(scores)) % 3 != 0))
    found = change(rows, swapped)
    assert found.verdict == "deflated"
    assert "deflated by" in found.sentence


def test_the_interval_covers_the_truth_as_often_as_it_says_and_the_limit_is_detected_in_four_of_five() -> None:
    rng, n, covered, significant = np.random.default_rng(0), 50, 0, 0
    for _ in range(2_000):
        spread = rng.normal(0.1, 0.3, n)
        found = paired_scores(spread, np.zeros(n))
        assert found.difference.low is not None
        assert found.difference.high is not None
        covered += found.difference.low <= 0.1 <= found.difference.high
    assert 0.93 <= covered / 2_000 <= 0.97
    limit = np.mean([paired_scores(rng.normal(0, 1, n), np.zeros(n)).detectable for _ in range(500)])
    for _ in range(2_000):
        p = paired_scores(rng.normal(limit, 1, n), np.zeros(n)).p
        significant += p is not None and p < 0.05
    assert 0.77 <= significant / 2_000 <= 0.83
    binary = paired_scores(np.ones(40), np.ones(40)).detectable
    assert binary is not None
    assert paired_power(0.0, binary, 40) >= 0.8 > paired_power(0.0, binary - 0.002, 40)


def test_seeds_of_one_item_are_averaged_and_unscored_pairs_counted() -> None:
    rng = np.random.default_rng(4)
    first, second, items = rng.random(60), rng.random(60), np.repeat(np.arange(20), 3)
    first[7] = np.nan
    found = paired_scores(first, second, items)
    means = pd.Series(first - second).groupby(items).mean()
    assert found.difference.estimate == pytest.approx(means.mean())
    assert (found.difference.n, found.difference.n_unscored) == (20, 1)
    assert (found.difference.low, found.difference.high) == pytest.approx(stats.t.interval(0.95, 19, means.mean(), stats.sem(means)))


def test_one_item_a_constant_score_and_no_score_are_said() -> None:
    rows, scores = simulated(1, 0.3, n=1)
    found = change(rows, scores)
    assert (found.verdict, found.sentence) == ("unknown", "Cannot tell: one item gives no interval.")
    rows, scores = (table.assign(own_score=0.0) for table in simulated(1, 0.3, n=30))
    assert "0 on every item" in change(rows, scores).sentence
    rows, scores = (table.assign(own_score=1.0) for table in simulated(1, 0.3, n=30))
    constant = change(rows, scores).sentence
    assert "No difference in the own score was found" in constant
    assert "would be found with 80 % power" in constant
    rows, _ = simulated(1, 0.3, n=30)
    lost = rows.assign(own_score=np.where(rows.condition == "base", 1.0, 0.0))  # every item changes alike
    [at] = change(lost, None).strengths
    assert at.against_base.difference.low is not None
    assert at.against_base.difference.low > 0.8
    assert "no unrelated contrasts were run" in change(lost, None).sentence
    assert not analyze_tables(rows.assign(own_score=np.nan), config()).score_change
    broken = rows.assign(mean_logprob=np.where(rows.condition == "base", -1.0, -4.0))
    assert "no coherent responses" in analyze_tables(broken, config()).score_change["exam"].sentence
    assert "not steered" in change(rows[rows.condition == "base"], None).sentence


def test_scores_beyond_one_are_given_on_their_own_scale() -> None:
    rows, scores = simulated(1, 0.3, scale=10)
    found = change(rows, scores)
    assert found.is_share is False
    assert "on the score's own scale" in found.sentence


def test_associations_equal_scipy_and_constant_columns_have_none() -> None:
    rng = np.random.default_rng(5)
    own = (rng.random(150) < 0.5).astype(float)
    measure = own * 0.5 + rng.normal(size=150)
    found = association(measure, own)
    assert found.pearson.estimate == pytest.approx(stats.pointbiserialr(own, measure).statistic)
    assert found.spearman.estimate == pytest.approx(stats.spearmanr(measure, own).statistic)
    fisher = stats.pearsonr(measure, own).confidence_interval()
    assert (found.pearson.low, found.pearson.high) == pytest.approx((fisher.low, fisher.high), abs=0.05)
    assert "constant" in association(np.ones(30), own[:30]).pearson.reason
    assert "too few" in association(measure[:2], own[:2]).pearson.reason
    doubled = association(np.repeat(measure, 2), np.repeat(own, 2), np.repeat(np.arange(150), 2))
    assert doubled == found  # twice the same seed is not twice the evidence


def test_every_measure_that_was_taken_has_its_association_and_table_and_words_say_the_change() -> None:
    rows, scores = simulated(1, 0.3)
    table = transcripts(50)
    rows = pd.concat([rows, table[table.task == "chat"].assign(own_score=np.nan, steer_unit=None)], ignore_index=True)
    rng = np.random.default_rng(6)
    noise = rng.normal(size=len(rows))
    names = {"probe:testing": rows.own_score.fillna(0) + noise, "probe:observed": noise, "probe:unrelated-1": np.nan, "follow_up": noise}
    rows = rows.assign(**names, n_yes=rng.integers(0, 5, len(rows)))
    result = analyze_tables(rows, config(), scores=scores)
    found = result.score_change["exam"]
    assert list(found.measures) == ["nla", "probe", "follow_up", "verbalized"]
    base, chats = (rows[(rows.condition == "base") & (rows.role == role)] for role in ("benchmark", "deployment control"))
    z = sum((base[name] - chats[name].mean()) / chats[name].std() for name in ("probe:testing", "probe:observed"))
    assert found.measures["probe"].spearman.estimate == pytest.approx(stats.spearmanr(z, base.own_score.astype(float)).statistic)
    assert found.measures["verbalized"].pearson.reason
    text = shown(result_table(result))
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "Change of the own score" in text
    assert "steering unit mean_norm" in text.replace("\n", " ")
    assert any("Own score inflated by" in sentence for sentence in summary(result))


def test_strengths_of_different_units_are_never_pooled(tmp_path: Path) -> None:
    rows, _ = simulated(1, 0.3, n=20)
    tables = {"new": rows, "old": rows.drop(columns="steer_unit"), "same": rows.assign(internal=0.0)}
    for name, table in tables.items():
        (tmp_path / name).mkdir()
        table.to_parquet(tmp_path / name / "transcripts.parquet")
    assert {steering_unit(table) for table in tables.values()} == {"mean_norm", "contrast"}
    same, other = (compare(tmp_path / "new", tmp_path / name) for name in ("same", "old"))
    assert {cell.condition for cell in same.cells} == {"base", "awareness-0.2"}
    assert {cell.condition for cell in other.cells} == {"base"}
    assert other.differs["steer_unit"] == ("mean_norm", "contrast")
    mixed = pd.concat([rows, rows.assign(steer_unit=np.where(rows.direction != "", "contrast", None))])
    with pytest.raises(DataError, match="differ in steer_unit"):
        check_identity(mixed)


def test_an_audit_of_the_first_version_says_its_unit_and_is_not_continued(tmp_path: Path) -> None:
    keep_config(config(unrelated_contrasts=2), tmp_path)
    path = tmp_path / CONFIG_FILE
    fields = json.loads(path.read_text())
    new = {"steer_unit", "steer_bound", "unrelated_contrasts", "measure_unrelated", "matched_degradation", "matched"}
    path.write_text(json.dumps({name: field for name, field in fields.items() if name not in new}))
    old = stored_config(tmp_path)
    assert (old.steer_unit, old.unrelated_contrasts, old.matched_degradation) == ("contrast", 0, False)
    with pytest.raises(ConfigError, match="steer_unit 'contrast' -> 'mean_norm'"):
        keep_config(config(), tmp_path)
    path.write_text(json.dumps({name: [] if name == "steer" else field for name, field in fields.items() if name not in new}))
    assert stored_config(tmp_path).steer_unit == "mean_norm", "an audit that was not steered may be from now on"
    keep_config(config(), tmp_path)
