"""The instrument's own controls: vectors that hold nothing, the words of a prompt, and the direct question."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from inspect_ai.log import EvalError, read_eval_log, write_eval_log
from inspect_ai.model import ContentImage
from sklearn.metrics import roc_auc_score

from audit.analysis.analyze import analyze, analyze_tables
from audit.analysis.grader_error import error_of, grader_error
from audit.analysis.result import read_result
from audit.analysis.tables import read_tables
from audit.config import AuditConfig
from audit.controls.measure import control_vectors, run_controls, words_auroc
from audit.controls.record import CONTROLS_FILE, read_controls_file
from audit.running.run import run_audit
from audit.stats.auroc import auroc_interval
from audit.stats.correction import GraderError
from graders.base import Verdict
from graders.labelled.grading import GradedText
from nla.support.errors import DataError
from tests.test_audit_run import config, transcripts


def test_control_vectors_are_as_long_as_the_real_ones_and_hold_nothing_of_them() -> None:
    own = torch.randn(20, 64, generator=torch.Generator().manual_seed(0)) + 3
    made = control_vectors(own, 0)
    assert torch.equal(made["real"], own)
    for kind in ("shuffled", "random"):
        torch.testing.assert_close(made[kind].norm(dim=1), own.norm(dim=1))
        assert not torch.equal(made[kind], own)
    torch.testing.assert_close(made["shuffled"].sort(dim=1).values, own.sort(dim=1).values)
    torch.testing.assert_close(made["mean"], own.mean(dim=0).expand(20, -1))
    assert torch.equal(control_vectors(own, 0)["random"], made["random"])
    assert abs(float(torch.nn.functional.cosine_similarity(made["random"], own).mean())) < 0.15


def test_words_tell_apart_what_differs_in_words_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    neutral = [" ".join(rng.choice(["red", "blue", "green", "tall", "old", "new"], 6)) for _ in range(60)]
    exams = [f"question answer letter {text}" for text in neutral[:30]]
    told = words_auroc(exams, neutral[30:], "a")
    assert told is not None
    assert told.estimate == 1
    alike = words_auroc(neutral[:30], neutral[30:], "b")
    assert alike is not None
    assert alike.low < 0.5 < alike.high
    assert words_auroc(["one", "two"], neutral, "c") is None


def test_the_auroc_is_scikit_learns() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(0.5, 1, 40).round(1), rng.normal(0, 1, 30).round(1)
    found = auroc_interval(a, b, ("x",))
    assert found.estimate == pytest.approx(roc_auc_score([1] * 40 + [0] * 30, np.concatenate([a, b])))
    assert found.low < found.estimate < found.high


@pytest.mark.slow
def test_controls_run_on_an_audit_and_stand_in_its_result(tiny_folder: Callable[[str], Path], tmp_path: Path) -> None:
    small = config(
        tiny_folder("llama"), tasks=["gsm8k", "wildchat"], limit=6, rewrite=["realistic", "paraphrase"], random_directions=0, controls=5,
        positive_control=False,
    )  # fmt: skip
    run_audit(small, tmp_path)
    found = run_controls(tmp_path)
    assert read_controls_file(tmp_path) == found
    said: list[str] = []
    assert run_controls(tmp_path, said.append, again=False) == found
    assert not said, "the same logs are not read twice"
    kept = json.loads((tmp_path / CONTROLS_FILE).read_text())
    (tmp_path / CONTROLS_FILE).write_text(json.dumps(kept | {"made_from": "earlier logs"}))
    assert run_controls(tmp_path, said.append, again=False) == found
    assert said
    assert {kind: (one.n + one.n_unscored) for kind, one in found.vectors.items()} == dict.fromkeys(
        ("real", "shuffled", "random", "mean"), 5
    )
    told = {one.task: one for one in found.tasks}
    assert told["gsm8k"].words_auroc is not None
    assert told["gsm8k"].words_auroc.estimate > 0.9  # a maths template against chats
    assert told["wildchat"].words_auroc is None
    assert told["gsm8k"].log_odds.n == 6
    analyze(tmp_path)
    result = read_result(tmp_path / "audit.json")
    assert result.controls == found
    assert {(one.task, one.framing, one.pairs.n + one.pairs.n_unscored) for one in result.rewrites} == {
        ("gsm8k", "realistic", 6),
        ("gsm8k", "paraphrase", 6),
    }
    [steered] = [one for one in result.steering if one.task == "gsm8k"]
    assert [(one.direction, one.strength) for one in steered.projected] == [("awareness", 0.5)]
    assert result.grader_error is not None
    assert all(cell.token_rate_corrected is not None for cell in result.cells if cell.token_rate.n)
    (tmp_path / CONTROLS_FILE).write_text("{}")
    with pytest.raises(DataError, match="audit controls"):
        analyze(tmp_path)


def test_controls_leave_out_what_cannot_be_read(tiny_folder: Callable[[str], Path], tmp_path: Path) -> None:
    small = config(tiny_folder("llama"), tasks=["wildchat"], limit=3, random_directions=0, controls=3, positive_control=False, steer=[])
    run_audit(small, tmp_path)
    [path] = (tmp_path / "logs" / "base").glob("*.eval")
    log = read_eval_log(str(path))
    assert log.samples is not None
    log.samples[0].messages[0].content = "a long text " * 200  # the tiny model reads 512 tokens
    log.samples[1].messages[0].content = [ContentImage(image="data:image/png;base64,AAAA")]
    write_eval_log(log, str(path))
    controls = run_controls(tmp_path)
    assert controls.vectors["real"].n + controls.vectors["real"].n_unscored == 1
    [task] = controls.tasks
    assert task.log_odds.n == 1


def test_a_sample_that_ended_in_an_error_is_unscored_even_if_it_has_scores(tiny_folder: Callable[[str], Path], tmp_path: Path) -> None:
    small = config(tiny_folder("llama"), tasks=["wildchat"], limit=2, random_directions=0, positive_control=False, steer=[])
    run_audit(small, tmp_path)
    [path] = (tmp_path / "logs" / "base").glob("*.eval")
    log = read_eval_log(str(path))
    assert log.samples is not None
    log.samples[0].error = EvalError(message="RuntimeError('solver broke')", traceback="", traceback_ansi="")
    write_eval_log(log, str(path))
    table, explanations, _ = read_tables(tmp_path, small.conditions())
    broken, whole = (table[table.errored == errored].iloc[0] for errored in (True, False))
    assert broken[["internal", "verbalized", "own_score", "mean_logprob"]].isna().all()
    assert broken.unscored_reason == "the sample ended in an error"
    assert not whole[["internal", "verbalized"]].isna().any()
    assert set(explanations.transcript) == {whole.transcript}
    [cell] = analyze(tmp_path).cells
    assert [(bounds.scored.n, bounds.scored.n_unscored) for bounds in (cell.internal, cell.verbalized)] == [(1, 1)] * 2
    assert "1 of 2 transcripts have no internal verdict: the sample ended in an error (1)." in analyze(tmp_path).notes[-1]


def test_the_graders_errors_are_counted_from_labels() -> None:
    def item(reference: Verdict | None, verdict: Verdict | None) -> GradedText:
        return GradedText("i", "t", "r", "s", {}, reference, verdict, "", "")

    yes, no, unclear = Verdict.YES, Verdict.NO, Verdict.UNCLEAR
    items = [item(yes, yes), item(yes, unclear), item(no, yes), item(unclear, no), item(no, None), item(None, yes)]
    assert error_of(items) == GraderError(1, 2, 1, 2)
    assert grader_error(AuditConfig(model="local/x", tasks=("mmlu",), grader="judge")) is None
    shipped = grader_error(AuditConfig(model="local/x", tasks=("mmlu",)))
    assert shipped is not None
    assert (shipped.n_yes, shipped.n_other) == (77, 175)


def test_a_corrected_rate_is_that_of_rogan_and_gladen() -> None:
    table = transcripts(30).assign(n_yes=5, n_no=45)
    result = analyze_tables(table, config(Path("m")), GraderError(70, 80, 4, 200))
    for cell in result.cells:
        assert cell.token_rate_corrected is not None
        expected = (0.1 - 4 / 200) / (70 / 80 - 4 / 200)
        assert cell.token_rate_corrected.delta.estimate == pytest.approx(expected)
