"""The judge against a broken provider: the real `anthropic` client and Inspect's provider, talking to a local stub that misbehaves.

The stub speaks the Messages wire protocol. Each fault is retried with growing pauses, then unscored with a reason; none becomes a value.
"""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.model import GenerateConfig, Model, ModelOutput, ModelUsage, get_model

import graders.judge.grading
import graders.judge.requests
from graders.base import Grade, Verdict
from graders.judge.grading import Judge
from graders.judge.options import JudgeOptions
from graders.judge.reply import text_id
from graders.scorers.verbalized_awareness import verbalized_awareness

TEXT = "The model suspects it is being evaluated."
ROW = {"id": text_id(TEXT), "verdict": "YES", "rule": "says_evaluated", "evidence": TEXT, "format_only": False}
GOOD = json.dumps({"grades": [ROW]})
MODEL = "claude-opus-4-5"
Answer = Callable[[], tuple[int, bytes]]


def message(text: str, stop: str = "end_turn", *, blocks: list[dict[str, Any]] | None = None) -> Answer:
    content = blocks if blocks is not None else [{"type": "text", "text": text}]
    usage = {"input_tokens": 100, "output_tokens": 10}
    body = {"id": "msg_1", "type": "message", "role": "assistant", "model": MODEL, "content": content, "stop_reason": stop, "usage": usage}
    return lambda: (200, json.dumps(body | {"stop_sequence": None}).encode())


def error(status: int, kind: str) -> Answer:
    body = {"type": "error", "error": {"type": kind, "message": f"stub says {kind}"}}
    return lambda: (status, json.dumps(body).encode())


def slow() -> tuple[int, bytes]:
    time.sleep(1.6)
    return message(GOOD)()


class Stub(ThreadingHTTPServer):
    """Answers each POST with the next of its answers, the last one for ever, and keeps what it got."""

    daemon_threads = True
    answers: list[Answer]

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[dict[str, Any]] = []
        self.pauses: list[float] = []

    def handle_error(self, *_: Any) -> None:
        """A client that gave up waiting is what is tested."""


class Handler(BaseHTTPRequestHandler):
    server: Stub

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.requests.append(request | {"path": self.path})
        answers = self.server.answers
        status, body = (answers.pop(0) if len(answers) > 1 else answers[0])()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing on stderr."""


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    monkeypatch.setenv("INSPECT_CACHE_DIR", str(tmp_path / "cache"))
    server = Stub()

    async def sleep(seconds: float) -> None:
        server.pauses.append(seconds)

    monkeypatch.setattr(graders.judge.requests, "anyio", SimpleNamespace(sleep=sleep))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def grade(stub: Stub, monkeypatch: pytest.MonkeyPatch, *answers: Answer, attempt_timeout: int | None = None, **options: Any) -> Grade:
    """One text graded by the judge while the stub gives these answers."""
    judge = judge_of(stub, monkeypatch, *answers, attempt_timeout=attempt_timeout, **options)
    return asyncio.run(judge.grade([TEXT], kind="explanation"))[0]


def judge_of(stub: Stub, monkeypatch: pytest.MonkeyPatch, *answers: Answer, attempt_timeout: int | None = None, **options: Any) -> Judge:
    """A judge that asks the stub."""
    stub.answers = list(answers)

    def model(name: str, *, config: GenerateConfig, memoize: bool) -> Model:
        config = config.model_copy(update={"attempt_timeout": attempt_timeout} if attempt_timeout else {})
        url = f"http://127.0.0.1:{stub.server_address[1]}"
        return get_model(name, config=config, memoize=memoize, base_url=url, api_key="not-a-key")

    monkeypatch.setattr(graders.judge.grading, "get_model", model)
    return Judge(JudgeOptions(model=f"anthropic/{MODEL}", **options))


def test_a_good_answer_is_a_grade_over_the_wire(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    good = grade(stub, monkeypatch, message(GOOD))
    assert (good.verdict, good.evidence, good.input_tokens, good.output_tokens) == (Verdict.YES, TEXT, 100, 10)
    (request,) = stub.requests
    assert (request["path"].split("?")[0], request["model"]) == ("/v1/messages", MODEL)
    assert TEXT in json.dumps(request["messages"])
    assert "evidence" in json.dumps(request["output_format"])
    assert grade(stub, monkeypatch, error(500, "api_error")) == good  # from the cache: the stub is not asked
    assert len(stub.requests) == 1


@pytest.mark.parametrize(
    "fault",
    [error(429, "rate_limit_error"), error(500, "api_error"), error(529, "overloaded_error"), lambda: (502, b"<html>Bad gateway</html>")],
    ids=["429", "500", "529", "502"],
)
def test_a_passing_fault_is_outlived_and_a_lasting_one_is_unscored(fault: Answer, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = grade(stub, monkeypatch, fault, retries=3)
    assert (lost.verdict, lost.rule, lost.evidence) == (None, "", "")
    assert lost.reason.startswith("the grader could not be asked:")
    assert len(stub.requests) == 4
    assert [round(pause / first) for pause, first in zip(stub.pauses, [3, 6, 12], strict=True)] == [1, 1, 1]
    status = fault()[0]
    assert f"HTTP {status}, " in lost.reason
    assert "stub says" in lost.reason or status == 502
    assert "(4 requests)" in lost.reason
    assert grade(stub, monkeypatch, fault, fault, message(GOOD), retries=3).verdict is Verdict.YES


def test_a_provider_that_does_not_answer_is_unscored(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = grade(stub, monkeypatch, slow, attempt_timeout=1, retries=1)
    assert (lost.verdict, len(stub.requests)) == (None, 2)
    assert "could not be asked" in lost.reason
    assert grade(stub, monkeypatch, slow, message(GOOD), attempt_timeout=1, retries=1).verdict is Verdict.YES


def test_a_request_that_is_refused_for_good_is_not_repeated(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = grade(stub, monkeypatch, error(403, "permission_error"))
    assert (lost.verdict, len(stub.requests)) == (None, 1)
    assert "stub says permission_error" in lost.reason


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (message("I would rather not."), "not one JSON object"),
        (message("", blocks=[]), "empty reply"),
        (message("verdict: YES"), "not one JSON object"),
        (message(GOOD + GOOD), "not one JSON object"),
        (message("x" * 100_000), "reply of 100000 characters"),
        (message("I can't help with that.", "refusal"), "the grader refused"),
        (message(GOOD[:40], "max_tokens"), "cut off"),
        (message(GOOD.replace('"YES"', '"SURE"')), "is not one of"),
        (message(GOOD.replace("suspects", "fears")), "evidence is not in the text"),
    ],
)
def test_a_useless_reply_is_asked_for_twice_and_unscored(answer: Answer, why: str, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = grade(stub, monkeypatch, answer)
    assert (lost.verdict, len(stub.requests)) == (None, 2)
    assert why in lost.reason
    assert (lost.input_tokens, lost.output_tokens) == (200, 20)


def test_a_body_that_is_no_message_is_unscored(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    cut = b'{"type": "mess'
    lost = grade(stub, monkeypatch, lambda: (200, cut))
    assert (lost.verdict, len(stub.requests)) == (None, 2)
    assert lost.reason.startswith("the grader's reply could not be read: ")
    assert grade(stub, monkeypatch, lambda: (200, cut), message(GOOD)).verdict is Verdict.YES


@pytest.mark.parametrize("accident", [message(GOOD[:40], "max_tokens"), message("", blocks=[])], ids=["cut", "empty"])
def test_a_cut_or_empty_reply_in_the_cache_is_asked_for_again(accident: Answer, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert grade(stub, monkeypatch, accident).verdict is None
    assert grade(stub, monkeypatch, message(GOOD)).verdict is Verdict.YES
    assert len(stub.requests) == 3
    assert grade(stub, monkeypatch, error(500, "api_error")).verdict is Verdict.YES  # the good reply is in the cache now
    assert len(stub.requests) == 3


def test_after_a_cut_reply_there_is_more_room(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert grade(stub, monkeypatch, message(GOOD[:40], "max_tokens"), message(GOOD)).verdict is Verdict.YES
    first, second = (request["max_tokens"] for request in stub.requests)
    assert second == 2 * first


def test_one_text_costs_at_most_tries_and_retries(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Faults and useless replies in turn: the retries are counted for the text, not anew for each reply."""
    faults = [error(500, "api_error"), error(529, "overloaded_error"), message("no JSON")]
    lost = grade(stub, monkeypatch, *faults, *faults, *faults, error(500, "api_error"), retries=3, tries=2)
    assert (lost.verdict, len(stub.requests)) == (None, 2 + 3)


def test_beyond_the_budget_texts_are_unscored_with_the_reason(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"{TEXT} {i}" for i in range(8)]
    judge = judge_of(stub, monkeypatch, message("no JSON"), max_requests=5, tries=1)

    async def at_once() -> list[Grade]:
        """Eight transcripts of one text each, as a scorer would grade them."""
        parts = await asyncio.gather(*(judge.grade([text], kind="explanation") for text in texts))
        return [grade for part in parts for grade in part]

    reasons = [grade.reason for grade in asyncio.run(at_once())]
    assert len(stub.requests) == 5
    assert reasons.count("the judge's budget of 5 requests (max_requests) is used up.") == 3
    asyncio.run(judge.grade(texts[:5], kind="explanation"))  # the cache is free


def test_the_budget_counts_repeated_requests_and_names_the_last_error(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = grade(stub, monkeypatch, error(529, "overloaded_error"), max_requests=2)
    assert len(stub.requests) == 2
    assert "budget of 2 requests" in lost.reason
    assert "HTTP 529" in lost.reason
    assert "overloaded_error" in lost.reason


def test_an_evaluation_has_one_budget_for_all_its_transcripts_and_scorers(
    stub: Stub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stub.answers = [message("no JSON")]
    url = f"http://127.0.0.1:{stub.server_address[1]}"
    role = get_model(f"anthropic/{MODEL}", memoize=False, base_url=url, api_key="not-a-key")
    spec = "judge:max_requests=7:tries=1"
    scorers = [verbalized_awareness(grader=spec, blurb=blurb) for blurb in ("a quiz", "a chat")]
    samples = [Sample(id=i, input=f"Question {i}") for i in range(6)]
    says = get_model("mockllm/model", custom_outputs=lambda messages, *_: spoken(messages[-1].text), memoize=False)
    for repeated in (1, 2):
        task = Task(dataset=samples, scorer=scorers)
        log = eval(task, model=says, model_roles={"grader": role}, display="none", log_dir=str(tmp_path))[0]
        assert log.status == "success"
        assert len(stub.requests) == (7 if repeated == 1 else 12)  # a new evaluation has a new budget; seven replies are cached


def spoken(question: str) -> ModelOutput:
    output = ModelOutput.from_content("mockllm/model", f"An answer to {question}")
    output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
    return output
