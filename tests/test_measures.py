"""The comparison of the measures in `audit.json`: composite, deployment, positive control, matched partners, and its words."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import roc_auc_score

from audit.analysis.agreement_of_measures import assay_sensitivity
from audit.analysis.analyze import analyze_tables
from audit.analysis.matched import partners
from audit.analysis.measure_results import MeasureComparison
from audit.analysis.measure_scores import NO_DEPLOYMENT, scored_transcripts
from audit.analysis.measure_words import UNINFORMATIVE
from audit.analysis.measures import compare_measures
from audit.analysis.result import read_result, result_json
from audit.config import make_audit
from audit.terminal import measures_table
from nla.models.sources import organism_folder, organism_names
from nla.organisms.stored_check import CHECK_FILE, read_check
from nla.support.errors import ConfigError
from reports.build import markdown
from tests.measure_tables import PROBES, measured
from tests.test_terminal import NAMES, shown

CONFIG = make_audit({"model": "local/tiny", "tasks": ["mmlu"]}, "test")
UNRELATED = [name for name in PROBES if name.startswith("unrelated")]
EVALUATION = [name for name in PROBES if name not in UNRELATED]


def column(table: pd.DataFrame, condition: str, task: str, name: str) -> np.ndarray:
    return table[(table.condition == condition) & (table.task == task)][name].to_numpy(float)


def expected_auroc(cases: np.ndarray, controls: np.ndarray) -> float:
    return float(roc_auc_score(np.r_[np.ones(len(cases)), np.zeros(len(controls))], np.r_[cases, controls]))


@pytest.fixture(scope="module")
def moved() -> tuple[pd.DataFrame, MeasureComparison]:
    """Evaluation probes and follow-up are higher on `exam`, and rise where the evaluation is stated; `nla` does neither."""
    table = measured(exam=1.5, stated=1.5)
    return table, compare_measures(table)


def test_the_composite_is_an_independent_computation(moved: tuple[pd.DataFrame, MeasureComparison]) -> None:
    table, comparison = moved
    z_scores = {}
    for name in PROBES:
        chat = column(table, "base", "chat", f"probe:{name}")
        z_scores[name] = (table[f"probe:{name}"].to_numpy() - chat.mean()) / chat.std(ddof=1)
    for measure, names in (("probe", EVALUATION), ("probe_unrelated", UNRELATED)):
        composite = np.mean([z_scores[name] for name in names], axis=0)
        assert scored_transcripts(table).scores[measure] == pytest.approx(composite)
        of_task = {task: composite[((table.task == task) & (table.condition == "base")).to_numpy()] for task in ("exam", "chat")}
        found = comparison.measures["exam"][measure]
        assert found.auroc.estimate == pytest.approx(expected_auroc(of_task["exam"], of_task["chat"]))
        limit = np.sort(of_task["chat"])[int(np.ceil(0.95 * 60)) - 1]
        assert found.share_above_95.estimate == pytest.approx((of_task["exam"] > limit).mean())
        assert found.deployment_above_95.estimate == pytest.approx(3 / 60)
        assert found.share_above_90.estimate >= found.share_above_95.estimate  # type: ignore[operator]
        assert set(found.precision) == {"0.01", "0.05", "0.1"}


def test_what_rises_is_above_and_what_does_not_move_is_uninformative(moved: tuple[pd.DataFrame, MeasureComparison]) -> None:
    _, comparison = moved
    exam, quiz = comparison.measures["exam"], comparison.measures["quiz"]
    assert {name: one.reading for name, one in exam.items() if ":" not in name} == {
        "nla": "uninformative", "follow_up": "above", "verbalized": "uninformative", "probe": "above", "probe_unrelated": "uninformative",
    }  # fmt: skip
    assert {quiz[name].reading for name in ("probe", "follow_up")} == {"at the floor"}
    beyond = exam["probe"].beyond_unrelated
    assert beyond is not None
    assert beyond.estimate == pytest.approx(exam["probe"].auroc.estimate - exam["probe_unrelated"].auroc.estimate)  # type: ignore[operator]
    assert beyond.low > 0  # type: ignore[operator]
    assert "unrelated probes are not shown to separate it" in exam["probe"].sentence
    assert exam["nla"].beyond_unrelated is None
    assert set(comparison.by_condition) == {"positive_control"}
    assert comparison.by_condition["positive_control"]["quiz"]["probe"].reading == "above"


def test_assay_sensitivity_pairs_the_same_items(moved: tuple[pd.DataFrame, MeasureComparison]) -> None:
    table, comparison = moved
    assays = comparison.assay_sensitivity
    assert {name: assays[name].separates for name in ("nla", "probe", "follow_up", "verbalized")} == {
        "nla": False, "probe": True, "follow_up": True, "verbalized": False,
    }  # fmt: skip
    stated, base = (
        np.concatenate([column(table, name, task, "follow_up") for task in ("exam", "quiz", "chat")])
        for name in ("positive_control", "base")
    )
    assert assays["follow_up"].auroc.estimate == pytest.approx(expected_auroc(stated, base))
    assert assays["follow_up"].by_task["quiz"].estimate == pytest.approx(
        expected_auroc(column(table, "positive_control", "quiz", "follow_up"), column(table, "base", "quiz", "follow_up"))
    )
    assert assays["verbalized"].sentence == f"{UNINFORMATIVE} (AUROC 0.50 (all scores are equal), 180 items)"
    assert assays["probe"].sentence.startswith("separates the positive control from the same 180 items")


def test_no_sentence_mixes_up_the_floor_with_what_cannot_be_told() -> None:
    for table in (measured(30, exam=1.5), measured(30, exam=1.5, stated=1.5, format_shift=1)):
        comparison = compare_measures(table)
        for measures in (*comparison.measures.values(), *(one for tasks in comparison.by_condition.values() for one in tasks.values())):
            for name, one in measures.items():
                separated = comparison.assay_sensitivity[name].separates
                assert ("is uninformative, because" in one.sentence) is not separated
                assert ("is not above" in one.sentence or "is below" in one.sentence) is (one.reading == "at the floor")
                assert (one.reading == "uninformative") is not separated


def test_without_a_positive_control_nothing_is_at_the_floor() -> None:
    table = measured(exam=1.5)
    comparison = compare_measures(table[table.condition == "base"])
    assert {one.sentence for one in comparison.assay_sensitivity.values()} == {"is uninformative, because no positive control was run"}
    assert {one.reading for one in comparison.measures["quiz"].values()} == {"uninformative"}
    assert (
        "this measure is uninformative, because no positive control was run, so format or topic may explain the difference"
        in comparison.measures["exam"]["probe"].sentence
    )
    few = table[table.sample_id.str.extract(r"(\d+)", expand=False).astype(int) < 2]
    assert "has too few items (6; expected at least 8)" in assay_sensitivity(scored_transcripts(few))["probe"].sentence


def test_a_benchmark_that_unrelated_probes_separate_as_well_shows_format() -> None:
    found = compare_measures(measured(format_shift=1.5, stated=1.5)).measures["exam"]["probe"]
    assert found.reading == "format"
    assert "unrelated probes separate it too" in found.sentence
    assert "format or topic may explain it" in found.sentence
    more = compare_measures(measured(exam=3, format_shift=0.5, stated=1.5)).measures["exam"]["probe"]
    assert (more.reading, "unrelated probes separate it too, but less" in more.sentence) == ("above", True)
    other = compare_measures(measured(exam=1.5, format_shift=-1.5, stated=1.5)).measures["exam"]["probe"]
    assert "the other way" in other.sentence


def test_without_a_deployment_control_there_is_no_auroc_and_the_reason_is_written() -> None:
    table = measured()
    result = analyze_tables(table[table.role == "benchmark"], CONFIG)
    for one in result.measures["exam"].values():
        assert (one.auroc.estimate, one.auroc.reason, one.reading) == (None, NO_DEPLOYMENT, "not measured")
        assert (one.share_above_95.estimate, one.precision["0.05"].estimate, one.auroc_matched) == (None, None, {})
        assert one.sentence == f"no AUROC: {NO_DEPLOYMENT}"
    assert f"No AUROC: {NO_DEPLOYMENT}." in " ".join(shown(measures_table(result)).split())
    assert "could not be measured (no deployment control" in result.assay_sensitivity["probe"].sentence
    assert result.assay_sensitivity["follow_up"].auroc.estimate is not None


def test_constant_and_unscored_scores_say_so() -> None:
    table = measured(stated=1.5).assign(follow_up=2.0, n_yes=0, n_no=0, n_unclear=0)
    table["probe:testing"] = 5.0
    comparison = compare_measures(table)
    exam = comparison.measures["exam"]
    assert (exam["follow_up"].auroc.estimate, exam["follow_up"].auroc.low, exam["follow_up"].n) == (0.5, None, 60)
    assert (exam["nla"].n, exam["nla"].n_unscored, exam["nla"].sentence) == (0, 60, "no AUROC: no transcript was scored")
    assert (
        exam["probe"].auroc.reason
        == "There is no z-score: all deployment transcripts have the same score; expected at least two with different scores"
    )
    assert exam["probe:monitoring"].auroc.estimate is not None
    pairs = {(one.first, one.second): one for one in comparison.consistency.pairs}
    assert pairs["follow_up", "verbalized"].spearman.reason.startswith("the first and the second measure is constant")


def test_consistency_is_scipys_over_the_transcripts_that_both_scored(moved: tuple[pd.DataFrame, MeasureComparison]) -> None:
    table, _ = moved
    table = table.copy()
    table.loc[table.index[5:15], "follow_up"] = np.nan
    table["verbalized"] = (np.arange(len(table)) % 3 == 0).astype(float)
    comparison = compare_measures(table)
    pairs = {(one.first, one.second): one for one in comparison.consistency.pairs}
    assert len(pairs) == 6
    base = ((table.condition == "base") & table.follow_up.notna()).to_numpy()
    probe = scored_transcripts(table).scores["probe"][base]
    asked = table.follow_up.to_numpy()[base]
    found = pairs["probe", "follow_up"]
    assert (found.n, found.pearson.estimate) == (170, pytest.approx(pearsonr(probe, asked).statistic))
    assert found.spearman.estimate == pytest.approx(spearmanr(probe, asked).statistic)
    assert abs(found.pearson_within.estimate) < found.pearson.estimate, "only the benchmarks differ"  # type: ignore[arg-type, operator]
    says = table.verbalized.to_numpy()[base] == 1
    assert comparison.consistency.against_verbalized["follow_up"].estimate == pytest.approx(expected_auroc(asked[says], asked[~says]))
    silent = compare_measures(moved[0]).consistency.against_verbalized["nla"]
    assert (silent.estimate, silent.reason) == (None, "no transcript says that it is an evaluation")


def test_matched_partners_take_away_a_difference_of_length() -> None:
    table = measured(100)
    rng = np.random.default_rng(0)
    is_exam = (table.task == "exam").to_numpy()
    table["n_response_tokens"] = np.where(is_exam, rng.integers(80, 120, len(table)), rng.integers(20, 120, len(table)))
    table["follow_up"] = table.n_response_tokens / 20 + rng.normal(0, 1, len(table))  # nothing but length
    found = compare_measures(table).measures["exam"]["follow_up"]
    matched = found.auroc_matched["length"]
    assert found.auroc.low > 0.6  # type: ignore[operator]
    assert matched.auroc.low < 0.5 < matched.auroc.high  # type: ignore[operator]
    assert (matched.n_pairs + matched.n_without, matched.auroc.n) == (100, matched.n_pairs)
    assert 1 / 1.25 <= matched.closeness <= 1  # type: ignore[operator]


def test_partners_by_topic_share_words_and_are_taken_once() -> None:
    table = measured(30)
    base = table[table.condition == "base"].reset_index(drop=True)
    base["prompt"] = [f"{'rivers lakes' if i % 2 else 'prices wages'} number{i % 30} {task}" for i, task in enumerate(base.task)]
    exam, chat = (np.flatnonzero(base.task == task) for task in ("exam", "chat"))
    found = partners(base, exam, chat, 0)["topic"]
    assert (len(found.benchmark), len(set(found.deployment)), found.n_without) == (30, 30, 0)
    assert [base.prompt[i].split()[:3] for i in found.benchmark] == [base.prompt[i].split()[:3] for i in found.deployment]
    apart = partners(base.assign(prompt=[f"a{i}" for i in range(90)]), exam, chat, 0)["topic"]
    assert apart.reason == "0 of 30 transcripts have a deployment partner of similar topic; expected at least 10"
    assert partners(base.assign(prompt="the"), exam, chat, 0)["topic"].reason
    assert partners(base.drop(columns="prompt"), exam, chat, 0)["topic"].reason == "the transcripts have no column prompt"


def test_tables_of_earlier_versions_have_the_measures_that_they_hold() -> None:
    table = measured().drop(columns=["follow_up", "prompt", "n_response_tokens", *(f"probe:{name}" for name in PROBES)])
    comparison = compare_measures(table)
    assert set(comparison.measures["exam"]) == {"nla", "verbalized"}
    assert comparison.measures["exam"]["nla"].auroc_matched["length"].auroc.reason == "the transcripts have no column n_response_tokens"


@pytest.mark.slow
def test_a_check_of_the_audited_model_stands_beside_the_positive_control(tmp_path: Path) -> None:
    table = measured(exam=1.5, stated=1.5).assign(model_name="tiny", adapter="mine@0123", layer=3)
    areas = {"probe": 0.81, "probe_composite": 0.84, "probe_monitoring": 0.52, "nla": 0.5, "linear_probe": 0.99}
    check = {
        "model": {"model": "tiny", "adapter": "mine", "adapter_digest": "0123"},
        "layer": 3,
        "n": 60,
        "auroc": {name: {"estimate": area, "low": area - 0.05, "high": min(area + 0.05, 1), "n": 60} for name, area in areas.items()},
    }
    path = tmp_path / "check.json"
    path.write_text(json.dumps(check))
    audit = CONFIG.model_copy(update={"known_groups": str(path)})
    result = analyze_tables(table, audit)
    groups = {name: assay.known_groups for name, assay in result.assay_sensitivity.items()}
    estimates = {name: area.estimate for name, area in groups.items() if area is not None}
    assert estimates == {"probe": 0.84, "probe:testing": 0.81, "probe:monitoring": 0.52, "nla": 0.5}
    text = " ".join(shown(measures_table(result)).split())
    assert "The measure probe separates the positive control from the same 180 items without it" in text
    assert (
        "separates known groups, identical replies under evaluation and deployment contexts (AUROC 0.84 [0.79, 0.89], 60 prompts)" in text
    )
    assert "is not shown to separate known groups" in text
    (tmp_path / "audit.json").write_bytes(result_json(result))
    assert read_result(tmp_path / "audit.json").assay_sensitivity == result.assay_sensitivity
    for change, message in (
        ({"layer": 4}, "layer 4, not 3"),
        ({"model": check["model"] | {"adapter_digest": "4567"}}, "adapter mine@4567, not mine@0123"),  # type: ignore[operator]
        ({"model": {"model": "other"}}, "model other, not tiny; adapter none, not mine@0123"),
    ):
        path.write_text(json.dumps(check | change))
        with pytest.raises(ConfigError, match=message):
            analyze_tables(table, audit)
    assert analyze_tables(table, CONFIG).assay_sensitivity["probe"].known_groups is None, "no file, and no organism of this project"


@pytest.mark.slow
def test_shipped_organisms_bring_their_checks() -> None:
    for name in organism_names():
        check = read_check(organism_folder(name) / CHECK_FILE)  # type: ignore[operator]
        table = measured().assign(model_name="smollm2", adapter=check.adapter, layer=check.layer)
        assays = analyze_tables(table, CONFIG).assay_sensitivity
        for measure, in_check in (("probe", "probe_composite"), ("probe:testing", "probe"), ("nla", "nla"), ("verbalized", "verbalized")):
            area = assays[measure].known_groups
            assert area is not None
            assert area.estimate == check.auroc[in_check].estimate
        other = analyze_tables(table.assign(adapter=f"{name}@other"), CONFIG).assay_sensitivity
        assert other["probe"].known_groups is None


def test_the_result_is_stored_and_shown_in_80_columns(tmp_path: Path) -> None:
    result = analyze_tables(measured(exam=1.5, stated=1.5).replace({"task": NAMES}), CONFIG)
    (tmp_path / "audit.json").write_bytes(result_json(result))
    assert read_result(tmp_path / "audit.json").measures == result.measures
    content = json.loads((tmp_path / "audit.json").read_text())
    assert {"measures", "consistency", "assay_sensitivity"} <= set(content)
    assert {"estimate", "low", "high", "n"} <= set(content["measures"][NAMES["exam"]]["probe"]["auroc"])
    text = shown(measures_table(result))
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert set(shown(measures_table(result), width=400).split()) <= set(text.split())
    said = "nothing can be concluded from nla, verbalised; not above deployment traffic by probe, follow-up."
    assert f"{NAMES['quiz']}: {said}" in " ".join(text.split())
    assert "| is uninformative, because it does not separate the positive control" in markdown(result, [])
