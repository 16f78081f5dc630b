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
from typing import Any

import pytest
from inspect_ai.model import GenerateConfig, Model, get_model
from tenacity import RetryCallState, wait_exponential

import graders.judge.grading
from graders.base import Grade, Verdict
from graders.judge.grading import Judge, JudgeOptions
from graders.judge.reply import text_id

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


class Pauses(wait_exponential):
    """Short pauses that double, kept for the test to see."""

    def __init__(self, kept: list[float]) -> None:
        super().__init__(multiplier=0.01)
        self.kept = kept

    def __call__(self, retry_state: RetryCallState) -> float:
        self.kept.append(super().__call__(retry_state))
        return self.kept[-1]


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
    # Inspect's pauses start at 3 seconds; the same growth from a hundredth shows as much.
    monkeypatch.setattr("inspect_ai.model._retry.wait_exponential_jitter", lambda **_: Pauses(server.pauses))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def grade(stub: Stub, monkeypatch: pytest.MonkeyPatch, *answers: Answer, attempt_timeout: int | None = None, **options: Any) -> Grade:
    """One text graded by the judge while the stub gives these answers."""
    stub.answers = list(answers)

    def model(name: str, *, config: GenerateConfig, memoize: bool) -> Model:
        config = config.model_copy(update={"attempt_timeout": attempt_timeout} if attempt_timeout else {})
        url = f"http://127.0.0.1:{stub.server_address[1]}"
        # The client would make each request three times, with pauses of its own, before Inspect hears of a fault.
        return get_model(name, config=config, memoize=memoize, base_url=url, api_key="not-a-key", max_retries=0)

    monkeypatch.setattr(graders.judge.grading, "get_model", model)
    judge = Judge(JudgeOptions(model=f"anthropic/{MODEL}", **options))
    return asyncio.run(judge.grade([TEXT], kind="explanation"))[0]


def test_a_good_answer_is_a_grade_over_the_wire(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    found = grade(stub, monkeypatch, message(GOOD))
    assert (found.verdict, found.evidence, found.input_tokens, found.output_tokens) == (Verdict.YES, TEXT, 100, 10)
    (request,) = stub.requests
    assert (request["path"].split("?")[0], request["model"]) == ("/v1/messages", MODEL)
    assert TEXT in json.dumps(request["messages"])
    assert "evidence" in json.dumps(request["output_format"])
    assert grade(stub, monkeypatch, error(500, "api_error")) == found  # from the cache: the stub is not asked
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
    assert stub.pauses[:3] == [0.01, 0.02, 0.04]
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
        (message(GOOD.replace('"YES"', '"SURE"')), "not on the menu"),
        (message(GOOD.replace("suspects", "fears")), "evidence is not in the text"),
    ],
)
def test_a_useless_reply_is_asked_for_twice_and_unscored(answer: Answer, why: str, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = grade(stub, monkeypatch, answer)
    assert (lost.verdict, len(stub.requests)) == (None, 2)
    assert why in lost.reason
    assert (lost.input_tokens, lost.output_tokens) == (200, 20)


def test_a_body_that_is_no_message_is_unscored(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = grade(stub, monkeypatch, lambda: (200, b'{"type": "mess'), retries=1)
    assert lost.verdict is None
    assert lost.reason
