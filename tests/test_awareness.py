"""The awareness scorers end to end on a tiny model: inline, afterwards, and on logs of other providers."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from inspect_ai import Task, eval, score
from inspect_ai.dataset import Sample
from inspect_ai.log import EvalLog, read_eval_log
from inspect_ai.model import ModelOutput, ModelUsage, get_model
from inspect_ai.solver import generate, system_message
from statsmodels.stats.proportion import proportion_confint

import graders.rules.grading
from graders.base import Grade, Verdict
from graders.scorers.nla_awareness import nla_awareness
from graders.scorers.verbalized_awareness import verbalized_awareness
from nla.support.errors import ConfigError
from tests.prepared import Prepared

Folder = Callable[[str], Path]
QUESTIONS = [Sample(id=f"q{i}", input=f"What is {i} plus {i}?") for i in range(4)]


def run(folder: Path, *, model: str | None = None, scored: bool = True, **options: Any) -> EvalLog:
    scorers = [nla_awareness(tokens=10), verbalized_awareness()]
    task = Task(dataset=QUESTIONS, solver=[system_message("Be brief."), generate()], scorer=scorers)
    log = eval(
        task,
        model=model or f"local/{folder}",
        model_args=options.pop("model_args", {"dtype": "float32"}),
        display="none",
        log_dir=str(folder / "logs"),
        max_tokens=options.pop("max_tokens", 30),
        score=scored,
        **options,
    )[0]
    assert log.status == "success", log.error
    return log


def table(log: EvalLog, scorer: str = "nla_awareness") -> dict[Any, Any]:
    assert log.samples is not None
    return {s.id: (s.scores or {})[scorer] for s in log.samples}


def what_was_read(log: EvalLog) -> dict[Any, Any]:
    keys = ("token_id", "position", "message", "explanation", "verdict")
    return {i: [tuple(row[k] for k in keys) for row in (s.metadata or {})["tokens"]] for i, s in table(log).items()}


def metrics(log: EvalLog, scorer: str = "nla_awareness") -> dict[str, float]:
    assert log.results is not None
    return {k: m.value for s in log.results.scores if s.name == scorer for k, m in s.metrics.items()}


def test_each_transcript_has_a_table_of_the_tokens_that_were_read(tiny_folder: Folder) -> None:
    log = run(tiny_folder("llama"), max_tokens=6)
    tokenizer = get_model(f"local/{tiny_folder('llama')}", dtype="float32").api.tokenizer  # type: ignore[attr-defined]
    assert log.samples is not None
    for sample in log.samples:
        metadata = (sample.scores or {})["nla_awareness"].metadata or {}
        recorded = sample.output.message.metadata["local_tokens"]  # type: ignore[index]
        first = recorded["n_prompt"]
        assert metadata["k"] == len(metadata["tokens"]) == min(10, metadata["n_response_tokens"])
        assert metadata["exact_tokens"] is True
        assert metadata["layer"] == 2
        for row in metadata["tokens"]:
            assert row["token_id"] == recorded["ids"][row["position"] - first]
            assert row["token"] == tokenizer.decode([row["token_id"]])
            assert row["verdict"] in ("YES", "NO", "UNCLEAR")


def test_scoring_afterwards_gives_the_same_numbers(tiny_folder: Folder) -> None:
    inline = run(tiny_folder("llama"))
    later = score(run(tiny_folder("llama"), scored=False), [nla_awareness(tokens=10), verbalized_awareness()], display="none")
    assert what_was_read(later) == what_was_read(inline)
    assert metrics(later) == metrics(inline)


@pytest.mark.slow
def test_inspect_score_adds_awareness_on_the_command_line(tiny_folder: Folder, prepared: Prepared) -> None:
    log = run(tiny_folder("llama"), scored=False)
    append = ("--overwrite", "--action", "append", "--scorer", "graders/nla_awareness", "-S", "tokens=10")
    done = prepared.run("inspect", "score", log.location, *append)
    assert done.returncode == 0, done.stdout + done.stderr
    assert what_was_read(read_eval_log(log.location)) == what_was_read(run(tiny_folder("llama")))


def test_a_log_made_by_hf_can_be_audited(tiny_folder: Folder) -> None:
    folder = tiny_folder("llama")
    made = run(folder, model=f"hf/{folder}", model_args={"device": "cpu", "do_sample": False}, scored=False, max_connections=4)
    scored = score(made, nla_awareness(tokens=10), model=f"local/{folder}", display="none")
    assert scored.samples is not None
    for sample in scored.samples:
        metadata = (sample.scores or {})["nla_awareness"].metadata or {}
        assert metadata["k"] > 0
        assert metadata["exact_tokens"] is False
        text = sample.output.completion
        assert metadata["n_response_tokens"] == len(text.encode())
        assert all(row["token"] in text or "\ufffd" in row["token"] for row in metadata["tokens"])


def test_a_mock_log_needs_the_name_of_the_model_behind_it(tiny_folder: Folder) -> None:
    folder = tiny_folder("llama")
    outputs = [ModelOutput.from_content("mockllm/model", f"The answer is {i}.") for i in range(4)]
    for output in outputs:
        output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
    task = Task(dataset=QUESTIONS, solver=generate())
    made = eval(task, model=get_model("mockllm/model", custom_outputs=outputs), display="none", log_dir=str(folder / "logs"))[0]
    named = score(made, nla_awareness(tokens=10, model=str(folder)), display="none")
    assert {(s.metadata or {})["k"] for s in table(named).values()} == {10}
    with pytest.raises(Exception, match="does not say what open weights"):
        score(made, nla_awareness(), display="none")


class _Oracle:
    """A grader whose verdicts the test dictates."""

    name = "rules"

    async def grade(self, texts: list[str], *, kind: str, blurb: str = "", context: str = "") -> list[Grade]:
        assert kind in ("explanation", "response")
        grades = [self.choose(i) for i, _ in enumerate(texts)]
        # A YES counts only with evidence; unless the test gives some, it is the beginning of the text.
        return [
            replace(grade, evidence=text[:1]) if grade.verdict is Verdict.YES and not grade.evidence else grade
            for grade, text in zip(grades, texts, strict=True)
        ]

    def __init__(self, choose: Callable[[int], Grade]) -> None:
        self.choose = choose


@pytest.mark.parametrize(
    ("choose", "value", "rate", "n_unscored"),
    [
        (lambda i: Grade(Verdict.YES if i == 3 else Verdict.NO, "r"), 1.0, 0.1, 0),
        (lambda i: Grade(Verdict.UNCLEAR, "r"), 0.0, 0.0, 0),
        (lambda i: Grade(None, "", reason="refused") if i < 4 else Grade(Verdict.NO, "r"), 0.0, 0.0, 4),
        (lambda i: Grade(Verdict.YES, "r", evidence="not in the text") if i == 0 else Grade(Verdict.NO, "r"), 0.0, 0.0, 1),
        (lambda i: Grade(None, "", reason="refused"), None, None, 10),
        (lambda i: Grade(None, "", reason="refused") if i < 6 else Grade(Verdict.NO, "r"), None, None, 6),
        (lambda i: Grade(None, "", reason="refused") if i < 9 else Grade(Verdict.YES, "r"), 1.0, 1.0, 9),
    ],
    ids=[
        "one yes flags",
        "unclear does not",
        "failures are unscored",
        "evidence must be quoted",
        "all failed is unscored",
        "most failed is unscored",
        "a yes stands",
    ],
)
def test_flags_follow_the_grades(
    tiny_folder: Folder, monkeypatch: pytest.MonkeyPatch, choose: Any, value: float | None, rate: float | None, n_unscored: int
) -> None:
    monkeypatch.setattr(graders.rules, "grader", lambda: _Oracle(choose))
    log = run(tiny_folder("llama"))
    scores = table(log).values()
    assert {(s.metadata or {})["n_unscored"] for s in scores} == {n_unscored}
    assert log.results is not None
    results = next(s for s in log.results.scores if s.name == "nla_awareness")
    if value is None:
        assert (results.scored_samples, results.unscored_samples) == (0, 4)
        return
    low, high = proportion_confint(value * 4, 4, method="wilson")
    assert {s.as_float() for s in scores} == {value}
    found = metrics(log)
    assert found["token_rate"] == pytest.approx(rate)
    assert (found["flagged_rate"], found["flagged_low"], found["flagged_high"]) == pytest.approx((value, low, high))
    assert found["explanations_unscored"] == 4 * n_unscored


def test_epochs_do_not_narrow_the_interval(tiny_folder: Folder) -> None:
    once, thrice = (metrics(run(tiny_folder("llama"), epochs=epochs)) for epochs in (1, 3))
    assert thrice["n"] == 3 * once["n"]
    assert thrice["flagged_high"] == pytest.approx(once["flagged_high"])


def test_an_empty_response_is_unscored_with_its_reason(tiny_folder: Folder) -> None:
    task = Task(dataset=[Sample(id="long", input="x" * 600)], solver=generate(), scorer=[nla_awareness(), verbalized_awareness()])
    log = eval(task, model=f"local/{tiny_folder('llama')}", display="none", log_dir=str(tiny_folder("llama") / "logs"))[0]
    assert log.status == "success", log.error
    assert {name: s.reason for name, s in (log.samples or [])[0].scores.items()} == {  # type: ignore[union-attr]
        "nla_awareness": "no response tokens",
        "verbalized_awareness": "no assistant turn with text",
    }


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tokens": 0}, "tokens=0"),
        ({"grader": "nobody"}, "no grader named"),
        ({"grader": "base"}, "expected one of classifier, judge, rules"),
        ({"verbalizer": "nope"}, "av, av_vllm, jacobian_lens, logit_lens, selfie"),
        ({"layer": -1}, "layer=-1"),
        ({"tokens": "abc"}, "tokens=abc"),
        ({"seed": 1.5}, "seed=1.5"),
    ],
)
def test_options_that_make_no_sense_are_refused_at_the_door(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        nla_awareness(**options)
