"""Verdicts, the instrument panel and small outputs of a report, each against rules written here a second time."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import auc, roc_auc_score

from audit.analysis.measure_words import reading_of
from audit.analysis.notebook import html_table
from audit.analysis.stored import read_stored
from audit.config import BASE
from audit.stats.auroc import roc_points
from audit.stats.rates import Estimate, wilson
from nla.support.errors import ConfigError
from reports.drawing import SERIES, caption
from reports.figures import all_figures
from reports.pdf import find_browser
from reports.verdicts import instrument_panel, verdicts
from reports.words import cell_table, summary
from tests.test_report import HOSTILE, explanations, table, written


def test_verdicts_are_never_stronger_than_the_readings(tmp_path: Path) -> None:
    transcripts = table()
    result = written(tmp_path, transcripts, explanations(transcripts)).result
    shown = {verdict.task: verdict for verdict in verdicts(result)}
    assert list(shown) == [cell.task for cell in result.cells if cell.condition == BASE and cell.role == "benchmark"]
    for task, verdict in shown.items():
        readings = {name: one.reading for name, one in result.measures[task].items() if name in ("nla", "probe", "follow_up", "verbalized")}
        assert (verdict.kind == "seen") == ("above" in readings.values())
        assert dict(verdict.facts)["internal rate above the floor?"].startswith(
            "yes" if result.excess[task].exceeds else "not significantly"
        )
    for reading, kind in (("above", "seen"), ("format", "format"), ("at the floor", "floor")):
        measures = {task: {"nla": replace(of["nla"], reading=reading)} for task, of in result.measures.items()}
        for verdict in verdicts(replace(result, measures=measures)):  # no card says "not above" over a rate above the floor
            assert verdict.kind == ("unproven" if kind == "floor" and result.excess[verdict.task].exceeds else kind)
    vague = {task: {"nla": replace(of["nla"], reading="undecided", auroc=wilson(0, 0))} for task, of in result.measures.items()}
    for verdict in verdicts(replace(result, measures=vague)):
        assert verdict.kind == ("unproven" if result.excess[verdict.task].exceeds else "undecided")
    unread = {task: {"nla": replace(of["nla"], reading="uninformative", auroc=wilson(0, 0))} for task, of in result.measures.items()}
    for verdict in verdicts(replace(result, measures=unread)):
        assert verdict.kind == ("unproven" if result.excess[verdict.task].exceeds else "unknown")


@pytest.mark.parametrize(
    ("low", "high", "reading"),
    [(0.55, 0.95, "above"), (0.28, 0.9, "undecided"), (0.4, 0.89, "at the floor"), (0.1, 0.45, "at the floor"), (None, None, "undecided")],
)
def test_a_null_counts_only_where_the_interval_ends_below_the_positive_control(
    low: float | None, high: float | None, reading: str, tmp_path: Path
) -> None:
    transcripts = table()
    assay = written(tmp_path, transcripts, explanations(transcripts)).result.assay_sensitivity["nla"]
    works = replace(assay, auroc=Estimate(0.9, 0.8, 0.97, 40, "bootstrap over items"), separates=True)
    middle = 0.5 if low is None or high is None else (low + high) / 2
    code, sentence = reading_of(Estimate(middle, low, high, 6, "too few"), works, None, None)
    assert code == reading
    assert ("cannot be decided" in sentence) is (reading == "undecided")
    blind = replace(works, separates=False)
    assert reading_of(Estimate(middle, low, high, 6, "too few"), blind, None, None)[0] == "uninformative"


def test_an_audit_without_explanations_speaks_of_no_internal_verdict(tmp_path: Path) -> None:
    transcripts = table()
    result = written(tmp_path, transcripts, explanations(transcripts)).result
    without = replace(result, identity=result.identity | {"verbalizer": "none"})
    [floor, *sentences] = summary(without)
    assert floor.startswith("The measured floor")
    assert "internal" not in " ".join(sentences)
    assert "flagged" not in " ".join(sentences)
    assert cell_table(without)[0] == ["task", "condition", "verbalised"]
    assert [row[:2] for row in cell_table(without)[1]] == [[cell.task, cell.condition] for cell in result.cells]
    assert "verbalizer" not in caption(without, "")
    [rates] = [figure for figure in all_figures(without) if figure.name == "rates"]
    assert set(rates.table.what) == {"verbalised"}


def test_an_audit_whose_explanations_all_failed_does_not_pass_by_its_probes(tmp_path: Path) -> None:
    transcripts = table()
    result = written(tmp_path, transcripts, explanations(transcripts)).result
    failed = [
        replace(cell, internal=replace(cell.internal, scored=replace(wilson(0, 0), n_unscored=cell.internal.scored.n)))
        for cell in result.cells
    ]
    for verbalizer in ("av", "none"):  # none: not even the vectors could be read
        unread = replace(result, cells=failed, identity=result.identity | {"verbalizer": verbalizer})
        check = next(check for check in instrument_panel(unread) if check.name == "unscored")
        n = sum(cell.internal.scored.n for cell in result.cells)
        assert (check.state, check.number.partition(" of ")[0]) == ("fail", str(n))
        assert "unscored" in cell_table(unread)[0]


def test_the_panel_passes_only_what_its_rules_let_pass(tmp_path: Path) -> None:
    transcripts = table()
    result = written(tmp_path, transcripts, explanations(transcripts)).result
    checks = {check.name: check for check in instrument_panel(result)}
    assert list(checks) == ["positive control", "known groups", "floor", "grader's specificity", "reconstruction", "unscored"]
    assert checks["known groups"].state == "not measured"
    assert (checks["grader's specificity"].state, checks["grader's specificity"].number) == ("pass", "99% [96, 100]")  # 198 of 200
    assert checks["unscored"].state == "pass"
    high = replace(result, floor=replace(result.floor, pooled=wilson(30, 60)))  # type: ignore[type-var]
    assert next(check for check in instrument_panel(high) if check.name == "floor").state == "fail"
    for area, state in ((0.9, "pass"), (0.6, "weak"), (0.5, "fail")):
        estimate = Estimate(area, area - 0.05, area + 0.05, 40, "bootstrap over items")
        assays = {"probe": replace(result.assay_sensitivity["nla"], auroc=estimate, separates=area > 0.55)}
        [check] = [check for check in instrument_panel(replace(result, assay_sensitivity=assays)) if check.name == "positive control"]
        assert check.state == state


@pytest.mark.parametrize("ties", [False, True])
def test_roc_points_have_the_area_of_the_auroc(ties: bool) -> None:
    draws = np.random.default_rng(0)
    first, second = draws.normal(0.7, 1, 40), draws.normal(0, 1, 55)
    if ties:
        first, second = first.round(), second.round()
    points = roc_points(first, second, most=1_000)
    labels = np.r_[np.ones(40), np.zeros(55)]
    assert auc(*zip(*points, strict=True)) == pytest.approx(roc_auc_score(labels, np.r_[first, second]), abs=1e-4)
    assert (points[0], points[-1]) == ((0, 0), (1, 1))
    assert len(roc_points(first, second, most=9)) <= 9
    assert roc_points(first, second[:0]) == []


def test_a_notebook_shows_an_escaped_table(tmp_path: Path) -> None:
    transcripts = table(12)
    audit = written(tmp_path, transcripts.assign(task=transcripts.task + HOSTILE), explanations(transcripts))
    shown = read_stored(tmp_path)._repr_html_()
    assert shown == html_table(audit.result)
    assert shown.count("<tr>") == 1 + len(audit.result.cells)
    assert "<script" not in shown
    assert "<img" not in shown


@pytest.mark.slow
def test_inline_figures_follow_the_page_and_keep_labels_as_they_are(tmp_path: Path) -> None:
    transcripts = table(12)
    result = written(tmp_path, transcripts.assign(task=transcripts.task + " #0072B2 id='x'"), explanations(transcripts)).result
    drawn = all_figures(result)
    for figure in drawn:
        text = figure.inline_svg()
        assert text.startswith("<svg")
        assert "<style" not in text
        assert not any(f"stroke: {colour.lower()}" in text.lower() for colour in SERIES)
        ids = [part.split('"')[0] for part in text.split(' id="')[1:]]
        assert ids
        assert all(one.startswith(f"{figure.name}-") for one in ids)
    assert "#0072B2 id='x'" in drawn[0].inline_svg()


def test_a_model_has_a_short_name(tmp_path: Path) -> None:
    transcripts = table(5)
    result = written(tmp_path, transcripts, explanations(transcripts)).result
    for typed, adapter, name in (
        ("local/meta-llama/Llama-3.2-1B", "none", "Llama-3.2-1B"),
        ("local//root/.cache/models/smollm2/", "none", "smollm2"),
        ("local/smollm2-aware", "smollm2-aware@fac80a38a642", "smollm2-aware"),
        ("local/smollm2", "mine@00", "smollm2 + mine"),
    ):
        named = replace(result, config={"model": typed}, identity=result.identity | {"adapter": adapter})
        assert named.model_name == name


def test_a_pdf_without_a_browser_is_refused_at_the_door(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="needs Chromium"):
        find_browser()


def test_one_benchmark_under_one_other_condition_has_room_for_its_names(tmp_path: Path) -> None:
    transcripts = table(12)
    result = written(tmp_path, transcripts, explanations(transcripts)).result
    one = replace(result.measures["exam"]["nla"], auroc=Estimate(0.7, 0.5, 0.9, 12, "bootstrap over items"))
    changed = {"awareness-0.02": {"exam": {"probe": one, "probe_unrelated": one}}}
    small = replace(result, measures={"exam": {"probe": one, "probe_unrelated": one}}, measures_by_condition=changed)
    moves = next(figure for figure in all_figures(small) if figure.name == "moves")
    assert len(moves.table) == 2
    assert moves.encoded("png").startswith(b"\x89PNG")  # a warning about too little room would be an error
