"""Agreement figures against other implementations and simulations, labels that are wrong, and `audit agreement` as a user types it."""

import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import krippendorff
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.log import EvalLog
from inspect_ai.solver import generate
from scipy.stats import beta, binomtest
from sklearn.metrics import cohen_kappa_score, confusion_matrix
from statsmodels.stats.proportion import proportion_confint

import audit.cli
import graders.rules.grading
from audit.labelling.agreement_record import AgreementConfig, write_record
from audit.labelling.agreement_report import measure
from audit.stats import agreement as stats
from audit.stats.paired import mcnemar_exact
from audit.stats.rates import MISSING, YES, Codes, any_of, false_positive_rate, rate_for_any_of, wilson
from graders.base import Grade, Verdict
from graders.labelled import SHIPPED
from graders.labelled.labels import read_labels
from graders.rules.grading import grade_text
from graders.scorers.nla_awareness import nla_awareness
from tests.conftest import shared_data

EXACT = 1e-9
ITEMS = st.lists(st.tuples(*[st.integers(-1, 2)] * 3), min_size=2, max_size=40)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def alpha_elsewhere(labels: Codes) -> float:
    data = np.where(labels == MISSING, np.nan, labels).T
    return float(krippendorff.alpha(reliability_data=data, level_of_measurement="nominal", value_domain=[0, 1, 2]))


def ac1_elsewhere(labels: Codes) -> float:
    """Gwet 2008 in exact fractions; irrCAC, where it is installed (it pins numpy 1, so with --no-deps), has to say the same."""
    rows = [[int(label) for label in row if label != MISSING] for row in labels if set(row) != {MISSING}]
    agreeing = [Fraction(sum(a == b for a in row for b in row) - len(row), len(row) * (len(row) - 1)) for row in rows if len(row) > 1]
    shares = [sum((Fraction(row.count(label), len(row)) for row in rows), Fraction()) / len(rows) for label in range(3)]
    chance = sum((share * (1 - share) for share in shares), Fraction()) / 2
    ac1 = float((sum(agreeing, Fraction()) / len(agreeing) - chance) / (1 - chance))
    if find_spec("irrCAC") and len(rows) > 1:
        ratings = pd.DataFrame(np.where(labels == MISSING, np.nan, labels)).dropna(how="all")
        with np.errstate(all="ignore"):
            raw = import_module("irrCAC.raw").CAC(ratings, categories=[0.0, 1.0, 2.0], digits=15)
            assert raw.gwet()["est"]["coefficient_value"] == pytest.approx(ac1, abs=EXACT)
    return ac1


@given(ITEMS)
@settings(max_examples=200, deadline=None)
def test_coefficients_equal_those_of_other_implementations(items: list[tuple[int, ...]]) -> None:
    labels = np.array(items)
    two = labels[(labels[:, :2] != MISSING).all(axis=1), :2]
    single = len(two) == 0 or min(len(set(column)) for column in two.T) == 1
    kappa = stats.agreement(labels[:, :2], rng(), draws=2).kappa
    assert kappa.estimate == (None if single else pytest.approx(cohen_kappa_score(*two.T), abs=EXACT))
    assert bool(kappa.reason) >= single
    pairable = labels[(labels != MISSING).sum(axis=1) > 1]
    used = set(pairable[pairable != MISSING])
    found = stats.agreement(labels, rng(), draws=2)
    assert found.ac1.estimate == (pytest.approx(ac1_elsewhere(labels), abs=EXACT) if used else None)
    assert found.alpha.estimate == (pytest.approx(alpha_elsewhere(labels), abs=EXACT) if len(used) > 1 else None)
    assert len(used) != 1 or found.alpha.reason == "only one label was used"


def test_two_peoples_labels_of_xstest_agree_as_other_implementations_say() -> None:
    data = pd.read_parquet(shared_data("xstest/xstest_completions_two_annotators.parquet"))
    labels = np.stack([data[name].str[0].astype(int).to_numpy() - 1 for name in ("annotation_1", "annotation_2")], axis=1)
    start = time.perf_counter()
    found = stats.agreement(labels, rng())
    assert time.perf_counter() - start < 3
    assert (found, found.kappa.n) == (stats.agreement(labels, rng()), 1350)
    assert found.kappa.estimate == pytest.approx(cohen_kappa_score(*labels.T), abs=EXACT)
    assert found.alpha.estimate == pytest.approx(alpha_elsewhere(labels), abs=EXACT)
    assert found.ac1.estimate == pytest.approx(ac1_elsewhere(labels), abs=EXACT)
    assert found.percent.estimate == np.mean(labels[:, 0] == labels[:, 1])
    one_by_one = [cohen_kappa_score(*labels[rng_.integers(1350, size=1350)].T) for rng_ in [rng()] for _ in range(600)]
    assert (found.kappa.low, found.kappa.high) == pytest.approx(tuple(np.percentile(one_by_one, [2.5, 97.5])), abs=0.004)


def test_bootstrap_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    joint = np.array([[0.30, 0.03, 0.02], [0.05, 0.40, 0.03], [0.02, 0.05, 0.10]])
    chance = joint.sum(axis=1) @ joint.sum(axis=0)
    shares = (joint.sum(axis=1) + joint.sum(axis=0)) / 2
    agreed, spread = np.trace(joint), (shares * (1 - shares)).sum()
    truth = {"kappa": (agreed - chance) / (1 - chance), "ac1": (agreed - spread / 2) / (1 - spread / 2), "alpha": 1 - (1 - agreed) / spread}
    draw, covered = rng(), dict.fromkeys(truth, 0)
    for _ in range(300):
        cells = draw.choice(9, size=150, p=joint.ravel())
        found = stats.agreement(np.stack([cells // 3, cells % 3], axis=1), draw, draws=400)
        for name, value in truth.items():
            covered[name] += getattr(found, name).low <= value <= getattr(found, name).high
    assert all(0.89 <= count / 300 <= 0.99 for count in covered.values()), covered


def test_wilson_is_its_closed_form() -> None:
    found, z, p, n = wilson(47, 50), 1.959963984540054, 0.94, 50
    middle, half = (p + z * z / (2 * n)) / (1 + z * z / n), z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert (found.estimate, found.low, found.high) == pytest.approx((p, middle - half, middle + half), abs=EXACT)
    assert wilson(0, 0).estimate is None


@given(st.lists(st.tuples(st.integers(-1, 2), st.integers(-1, 2)), min_size=1, max_size=40))
def test_quality_counts_only_yes_and_leaves_out_the_unscored(items: list[tuple[int, int]]) -> None:
    found = stats.quality(*np.array(items).T, prevalence=0.05)
    yes = [said for truth, said in items if truth == YES]
    other = [said for truth, said in items if truth not in (YES, MISSING)]
    for one, said, right in ((found.sensitivity, yes, yes.count(0)), (found.specificity, other, other.count(1) + other.count(2))):
        assert (one.n, one.n_unscored) == (len(said) - said.count(MISSING), said.count(MISSING))
        assert one.estimate == (right / one.n if one.n else None)
        assert bool(one.reason) == (one.n == 0)
    known = [(truth, said % 4) for truth, said in items if truth != MISSING]  # unscored, -1, is the last column
    expected = confusion_matrix(*zip(*known, strict=True), labels=[0, 1, 2, 3])[:3] if known else np.zeros((3, 4))
    np.testing.assert_array_equal(stats.confusion(*np.array(items).T), expected)


def test_ppv_is_that_of_bayes_and_its_interval_covers() -> None:
    assert stats.ppv(45, 50, 3, 150, 0.05).estimate == pytest.approx(0.9 * 0.05 / (0.9 * 0.05 + 0.02 * 0.95))
    assert stats.ppv(50, 50, 0, 150, 0.05).low < 0.8  # type: ignore[operator]
    draw, truth = rng(), 0.9 * 0.05 / (0.9 * 0.05 + 0.03 * 0.95)
    counts = zip(draw.binomial(80, 0.9, 2000), draw.binomial(170, 0.03, 2000), strict=True)
    drawn = [stats.ppv(hits, 80, false_alarms, 170, 0.05) for hits, false_alarms in counts]
    covered = np.mean([one.low <= truth <= one.high for one in drawn])  # type: ignore[operator]
    assert 0.94 <= covered <= 0.98


@pytest.mark.parametrize("bound", [0.05, 0.01, 0.001, 0.0005])
def test_the_number_of_labels_certifies_the_bound_and_one_less_does_not(bound: float) -> None:
    assert stats.labels_needed(bound) == math.ceil(math.log(0.05) / math.log(1 - bound))
    for false_positives in (0, 1, 4):
        n = stats.labels_needed(bound, false_positives=false_positives)
        limits = [beta.ppf(0.95, false_positives + 1, m - false_positives) for m in (n, n - 1)]
        assert limits[0] <= bound < limits[1]
        assert false_positive_rate(false_positives, n).high == pytest.approx(limits[0])
    assert [round(any_of(rate, 50), 3) for rate in (0.001, 0.01)] == [0.049, 0.395]
    assert any_of(rate_for_any_of(bound, 50), 50) == pytest.approx(bound)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_is_a_binomial_test_of_the_discordant_items(items: list[tuple[bool, bool]]) -> None:
    found = mcnemar_exact(*np.array(items).T)
    first, second = (items.count((True, False)), items.count((False, True)))
    assert (found.only_first, found.only_second, found.n) == (first, second, len(items))
    assert found.p == pytest.approx(binomtest(first, first + second).pvalue if first + second else 1)


def test_agreement_without_a_single_error_has_no_certain_interval() -> None:
    labels = np.array([[0, 0]] * 10 + [[1, 1]] * 10)
    found = stats.agreement(labels, rng())
    assert (found.kappa.estimate, found.kappa.low) == (1, None)
    assert "all draws are equal" in found.kappa.reason
    assert found.percent.low == pytest.approx(proportion_confint(20, 20, method="wilson")[0])


def text_of(number: int, verdict: str, **more: Any) -> dict[str, Any]:
    labels = [{"annotator": "a", "kind": "author", "verdict": verdict}]
    return {"id": f"t{number}", "text": f"{verdict} text {number}", "split": "test", "labels": labels} | more


def lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    verdicts = ["YES"] * 20 + ["NO"] * 35 + ["UNCLEAR"] * 5
    path = tmp_path / "labels.jsonl"
    path.write_text(lines(*(text_of(i, verdict, rule=f"r{i % 3}") for i, verdict in enumerate(verdicts))))
    return path


class Stub:
    name = "rules"

    def __init__(self, say: Callable[[str], Grade]) -> None:
        self.say = say

    async def grade(self, texts: Sequence[str], *, kind: str, blurb: str = "", context: str = "") -> list[Grade]:
        assert kind == "explanation"
        return [self.say(text) for text in texts]


def oracle(text: str, on_yes: Grade = Grade(Verdict.YES, "r", "YES")) -> Grade:
    verdict = text.split(maxsplit=1)[0]
    return on_yes if verdict == "YES" else Grade(Verdict(verdict), "r")


blind = partial(oracle, on_yes=Grade(Verdict.NO, "r"))
silent = partial(oracle, on_yes=Grade(None, "", reason="refused"))
misquoting = partial(oracle, on_yes=Grade(Verdict.YES, "r", evidence="nowhere in it"))

Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    """Run `audit agreement …` through its entry point; gives exit status, stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "80")

    def command(*arguments: object, say: Callable[[str], Grade] | None = None) -> tuple[int, str, str]:
        if say is not None:
            monkeypatch.setattr(graders.rules, "grader", lambda: Stub(say))
        monkeypatch.setattr(sys, "argv", ["audit", "agreement", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            audit.cli.main()
        captured = capsys.readouterr()
        return int(left.value.code or 0), captured.out, captured.err

    return command


def test_shipped_labels_give_all_figures_in_80_columns(typed: Typed, tmp_path: Path) -> None:
    path = tmp_path / "new" / "record.json"
    status, out, _ = typed(SHIPPED, "--split", "dev", "--json", path)
    assert (status, out.count("FAILED")) == (0, 0)
    assert max(map(len, out.splitlines())) <= 80
    assert "agreement with people is unmeasured" in " ".join(out.split())
    words = ("sensitivity", "specificity", "PPV", "kappa", "AC1", "alpha", "UNCLEAR", "human_exam", "features", "In dispute")
    assert all(word in out for word in words)
    record = json.loads(path.read_text())
    dev = {item["id"]: item for item in map(json.loads, SHIPPED.read_text().splitlines()) if item["split"] == "dev"}
    said = {name: str(grade_text(item["text"], "explanation").verdict) for name, item in dev.items()}
    assert {item["id"]: item["verdict"] for item in record["items"]} == said
    truth = {name: item["labels"][0]["verdict"] for name, item in dev.items()}
    assert set(record["disputes"]) == {name for name in dev if said[name] != truth[name]}
    assert record["main"]["figures"]["kappa"]["estimate"] == pytest.approx(cohen_kappa_score(list(truth.values()), list(said.values())))
    assert record["quality"]["sensitivity"]["estimate"] == np.mean([said[name] == "YES" for name in dev if truth[name] == "YES"])
    status, out, _ = typed(SHIPPED, "--split", "dev", "--against", path, say=lambda text: Grade(Verdict.YES, "always", text))
    assert (status, "specificity fell" in out) == (1, True)
    assert record["by_rule"]["human_exam"]["specificity"]["n"] == sum(item["rule"] == "human_exam" for item in dev.values())


@pytest.mark.parametrize(
    ("say", "fell"),
    [(blind, "sensitivity fell from 1.000 to 0.000"), (silent, "scored fell from 1.000 to 0.667"), (misquoting, "scored fell")],
)
def test_a_broken_grader_fails_against_the_record(say: Callable[[str], Grade], fell: str, labels: Path, typed: Typed) -> None:
    record = labels.with_name("record.json")
    assert typed(labels, "--json", record, say=oracle)[0] == 0
    assert typed(labels, "--against", record, say=oracle)[0] == 0
    status, out, _ = typed(labels, "--against", record, say=say)
    assert status == 1
    assert all(told in out for told in (fell, "Changed: 20 texts", *(f"t{i} " for i in range(20))))
    if say is blind:
        assert "only before right 20, only now right 0, exact McNemar p = 1.9e-06" in " ".join(out.split())
        assert typed(labels, "--against", record, "--max-drop", "1", say=say)[0] == 0


def test_bounds_fail_where_they_do_not_hold_or_the_figure_is_undefined(labels: Path, typed: Typed) -> None:
    bounds = ("--min-kappa", "0.9", "--min-sensitivity", "0.9", "--min-specificity", "0.9")
    assert typed(labels, *bounds, say=oracle)[0] == 0
    status, out, _ = typed(labels, *bounds, say=blind)
    assert (status, out.count("FAILED")) == (1, 2)
    labels.write_text(lines(*(text_of(i, "NO") for i in range(5))), encoding="utf-8")
    status, out, _ = typed(labels, *bounds, say=oracle)
    told = " ".join(out.split())
    assert (status, "nan" in told) == (1, False)
    assert "kappa is undefined: only one label was used" in told
    assert "sensitivity is undefined: no scored item has the reference YES" in told


def test_two_people_are_the_reference_and_the_ceiling(typed: Typed, tmp_path: Path) -> None:
    path = tmp_path / "flat.csv"
    path.write_text("id,text,person:anna,ben,model:judge\n1,YES x,YES,YES,NO\n2,NO x,NO,NO,\n3,NO y,NO,YES,NO\n4,z,,,\n")
    found = read_labels(path)
    assert found.kinds == {"anna": "person", "ben": "person", "judge": "model"}
    assert [found.reference(item) for item in found.items] == ["YES", "NO", None]
    assert (found.n_unlabelled, found.assumed, found.items[1].verdict_of("judge")) == (1, ("ben",), None)
    status, out, _ = typed(path, say=oracle)
    told = " ".join(out.split())
    assert (status, "unmeasured" in told, "all annotators" in told) == (0, False, True)
    assert "Ceiling: anna and ben, two people, have kappa 0.400" in told
    assert "majority of anna, ben; 1 texts have no reference" in told


FLAT = {"id": "1", "text": "x"}
SAID = FLAT | {"annotator": "a", "verdict": "YES"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lines(text_of(1, "MAYBE")), "line 1: labels.0.verdict: Input should be 'YES', 'NO' or 'UNCLEAR'; found 'MAYBE'"),
        (lines(FLAT | {"a": "yes"}), "found 'yes'"),
        (lines(text_of(1, "YES"), text_of(1, "YES", text="other")), "line 2 repeats the id 't1' of an earlier row with another text"),
        (lines(text_of(1, "YES"), text_of(1, "YES", split="dev")), "another split"),
        (lines(SAID, SAID | {"verdict": "NO"}), "'a' has two different labels of text '1'"),
        (
            lines(SAID | {"kind": "person"}, SAID | {"id": "2", "kind": "model"}),
            "the kind of 'a' is person in one label and model in another",
        ),
        (lines(text_of(1, "YES", labels=[])), "expected at least one label"),
        (lines(text_of(1, "YES", labels=[{"annotator": "", "kind": "person", "verdict": "NO"}])), "labels.0.annotator"),
        (lines(text_of(1, "YES", labels=[{"annotator": "a", "kind": "robot", "verdict": "NO"}])), "'person', 'author' or 'model'"),
        (lines(FLAT | {"verdict": "YES"}), "a verdict but no annotator"),
        (lines(FLAT), "no annotator"),
        (lines(FLAT | {"a": ""}), "1 texts and no label"),
        (lines(text_of(1, "YES", colour="red")), "colour: Extra inputs are not permitted"),
        (lines(SAID | {"colour": "red"}), "unknown key 'colour'"),
        (lines({"text": "x", "a": "YES"}), "id: Field required"),
        ("", "has no row"),
        ("{nonsense\n", "line 1 is not valid JSON"),
        ("[1]\n", "not an object"),
        ("\udcff", "cannot be read"),
        ("id,text,a,a\n1,x,YES,NO\n", "two columns named 'a'"),
        ("id,text,a\n1,x,YES,NO\n", "does not have 3 cells"),
    ],
)
def test_labels_that_are_wrong_are_refused_with_their_place(content: str, said: str, typed: Typed, tmp_path: Path) -> None:
    path = tmp_path / ("labels.csv" if content.startswith("id,") else "labels.jsonl")
    path.write_text(content, errors="surrogateescape")
    status, out, err = typed(path)
    assert (status, out, err[:7], said in err) == (2, "", "error: ", True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--grader", "nobody"], "no grader named 'nobody'"),
        (["--split", "dev"], "has no text in split dev"),
        (["--prevalence", "0"], "Invalid --prevalence 0.0"),
        (["--min-kappa", "90"], "expected a number from 0 to 1"),
        (["--against", "nowhere.json"], "is not a record to compare with"),
        (["--against", "x.json", "--json", "x.json"], "would be lost"),
        (["--controls", "nowhere.eval"], "nowhere.eval does not exist"),
        (["--json", "/dev/null/x.json"], "cannot be written"),
    ],
)
def test_options_that_make_no_sense_exit_2(options: list[str], said: str, labels: Path, typed: Typed) -> None:
    status, _, err = typed(labels, *options, say=oracle)
    assert (status, said in err) == (2, True)


def test_an_interrupted_record_leaves_the_old_one(labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report, path = measure(AgreementConfig(labels)), tmp_path / "record.json"
    write_record(report, path)
    before = path.read_bytes()

    monkeypatch.setattr("audit.labelling.agreement_record.json.dump", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_record(report, path)
    assert path.read_bytes() == before
    assert {one.name for one in tmp_path.iterdir()} == {"labels.jsonl", "record.json"}


def control_log(folder: Path, role: str) -> EvalLog:
    task = Task(
        dataset=[Sample(id=i, input=f"What is {i}?") for i in range(4)],
        solver=generate(),
        scorer=nla_awareness(tokens=5),
        metadata={"role": role},
        name="control",
    )
    return eval(task, model=f"local/{folder}", display="none", log_dir=str(folder / "controls"), max_tokens=8)[0]


@pytest.mark.slow
def test_controls_bound_the_false_positives_of_use(labels: Path, typed: Typed, tiny_folder: Callable[[str], Path], tmp_path: Path) -> None:
    log = control_log(tiny_folder("llama"), "deployment control")
    rows = [row for sample in log.samples or [] for row in sample.scores["nla_awareness"].metadata["tokens"]]  # type: ignore[index]
    marked = rows[0]["explanation"]
    n_marked = sum(row["explanation"] == marked for row in rows)
    record = tmp_path / "record.json"
    status, out, _ = typed(
        labels, "--controls", log.location, "--json", record, say=lambda t: Grade(Verdict.YES if t == marked else Verdict.NO, "r", t)
    )
    found = json.loads(record.read_text())["controls"]
    high = proportion_confint(n_marked, len(rows), alpha=0.1, method="beta")[1]
    assert found["explanations"]["high"] == pytest.approx(high)
    assert (status, found["explanations"]["n"], len(found["yes"])) == (0, len(rows), n_marked)
    assert f"any of 50 independent ones {1 - (1 - high) ** 50:.1%}" in " ".join(out.split())
    status, _, err = typed(labels, "--controls", control_log(tiny_folder("llama"), "benchmark").location)
    assert (status, "--controls takes logs of deployment traffic" in err) == (2, True)
