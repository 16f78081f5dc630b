"""Transcripts read by another engine (`-M read_with=vllm`), and what a vLLM server may answer. The engine here is one that asks the
built-in one; with vLLM itself, `test_vllm_reading.py` reads."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import psutil
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from audit.running.rescore_config import make_rescore, settings_of
from nla.activations.capture import residual_stream
from nla.activations.engine_reader import EngineReader
from nla.activations.steering import steered
from nla.engine import vllm_server
from nla.engine.hooked import Answer, HookedEngine, Question
from nla.engine.vllm_options import EngineOptions
from nla.engine.vllm_server import VLLMServer
from nla.inspect.provider import LocalArgs
from nla.inspect.read_with import ReaderOptions, reading_view
from nla.inspect.shared_read import VECTORS, read_vectors
from nla.instrument import CONTRAST
from nla.models.loaded import LoadedModel
from nla.support.errors import ConfigError, EngineError, HarnessError, TranscriptError
from nla.verbalizers.av_vllm import VLLMOptions
from nla.verbalizers.base import read_options
from tests.test_shared_read import conversation


@pytest.fixture(autouse=True)
def _client(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this file needs of vllm-lens, where it is not installed."""
    monkeypatch.setitem(sys.modules, "vllm_lens", SimpleNamespace(Hook=Hook, decode_activations=dict))


class Hook(SimpleNamespace):
    """Stands for the plugin's class of that name."""

    def model_dump(self) -> dict[str, Any]:
        return {"layer_indices": self.layer_indices}


class Asking(HookedEngine):
    """An engine that reads with the built-in one, some blocks too late, and counts what it was asked."""

    def __init__(self, model: LoadedModel, late: int = 0) -> None:
        super().__init__()
        self.model, self.late, self.asked = model, late, 0
        self.broken = False

    @property
    def longest(self) -> int:
        return 200

    def answers(self, questions: list[Question]) -> list[Answer]:
        self.asked += len(questions)
        if self.broken:
            raise EngineError("the engine is dead")
        layers = [question.arguments["output_residual_stream"][0] + self.late for question in questions]
        streams = [residual_stream(self.model, question.row, layer) for question, layer in zip(questions, layers, strict=True)]
        blocks = questions[0].arguments["apply_hooks"][0].layer_indices
        counts = [{"0": {str(block): len(stream) for block in blocks}} for stream in streams]
        return [Answer([0], "length", stream[None], count) for stream, count in zip(streams, counts, strict=True)]


def view_read_by(engine: HookedEngine, model: LoadedModel) -> LoadedModel:
    return replace(model, reader=EngineReader("another engine", lambda: engine))


def read(model: LoadedModel, **how: bool) -> Tensor:
    return read_vectors(model, conversation("A reply of some words, and a few more."), 1, n_sampled=4, key=(0, "q", 1), **how).vectors


def test_another_engine_gives_the_same_vectors(tiny: LoadedModel) -> None:
    engine = Asking(tiny)
    view = view_read_by(engine, tiny)
    vectors = read(view)
    torch.testing.assert_close(vectors, read(tiny), rtol=1e-5, atol=1e-5)
    asked = engine.asked
    assert asked == 4  # three texts of the comparison, and the transcript
    read(view)
    assert engine.asked == asked + 1  # compared once


def test_what_it_read_is_shared_between_scorers(tiny: LoadedModel) -> None:
    VECTORS.clear()
    engine = Asking(tiny)
    view = view_read_by(engine, tiny)
    first, asked = read(view, shared=True, logprobs=True), engine.asked
    assert torch.equal(read(view, shared=True), first)
    assert engine.asked == asked


def test_an_engine_with_other_streams_is_refused_before_it_reads(tiny: LoadedModel) -> None:
    with pytest.raises(ConfigError, match=r"another engine reads after block 1 differ from those of .*relative error"):
        read(view_read_by(Asking(tiny, late=1), tiny))


def test_a_dead_engine_ends_the_run_and_a_long_transcript_costs_only_itself(tiny: LoadedModel) -> None:
    engine = Asking(tiny)
    view = view_read_by(engine, tiny)
    read(view)
    with pytest.raises(TranscriptError, match="cannot be read in vLLM, which takes 199"):
        read_vectors(view, conversation("A long reply. " * 30), 1, n_sampled=4, key=(0,))
    engine.broken = True
    with pytest.raises(EngineError, match="the engine is dead"):
        read(view)


def test_an_engine_that_cannot_start_is_not_started_again(tiny: LoadedModel) -> None:
    starts: list[int] = []

    def start() -> HookedEngine:
        starts.append(1)
        raise ConfigError("there is no room")

    view = replace(tiny, reader=EngineReader("another engine", start))
    for _ in range(3):
        with pytest.raises(ConfigError, match="there is no room"):
            read(view)
    assert len(starts) == 1


def test_an_engine_that_leaves_out_the_steering_is_refused(tiny: LoadedModel, tmp_path: Path) -> None:
    """Even where the steering is so weak that the difference is within the bound."""
    save_file({"directions": torch.ones(tiny.n_layers, tiny.d_model)}, tmp_path / "d.safetensors")
    view = steered(tiny, f"{tmp_path / 'd.safetensors'}:0.00001", CONTRAST)
    assert read(view_read_by(Asking(view), view)).shape[1] == tiny.d_model
    with pytest.raises(ConfigError, match="or leave out the steering"):
        read(view_read_by(Asking(tiny), view))


def test_views_of_a_model_share_an_engine_and_verbalizers_are_made_without_it(tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EngineOptions, "check", lambda *_: None)
    spec = "vllm:base_url=http://127.0.0.1:9"
    view, other = reading_view(tiny, spec), reading_view(replace(tiny), spec)
    assert view.reader is other.reader
    assert view is reading_view(tiny, spec)
    assert view.base is tiny
    assert reading_view(tiny, "vllm").reader is not view.reader


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("sglang", "expected built-in or vllm"),
        ("built-in:gpu_memory=0.5", "expected built-in or vllm"),
        ("vllm:memory=1", "memory=1: Extra inputs are not permitted.*Options: base_url"),
        ("vllm:served=x", "served=NAME names a model of a server"),
        ("vllm:base_url=http://127.0.0.1:1:tensor_parallel=2", "tensor_parallel would change nothing with base_url"),
    ],
)
def test_a_wrong_engine_or_option_is_told(spec: str, message: str, tiny: LoadedModel) -> None:
    with pytest.raises(ConfigError, match=message):
        reading_view(tiny, spec)


def test_the_built_in_engine_changes_nothing(tiny: LoadedModel) -> None:
    assert reading_view(tiny, "built-in") is tiny
    with pytest.raises(ConfigError, match="Invalid -M read_with=3: expected built-in or vllm"):
        LocalArgs.parse({"read_with": 3})


@pytest.mark.parametrize("length", ["0", "-2", "63", "10000001", "many"])
def test_a_length_that_vllm_cannot_use_is_refused(length: str) -> None:
    for kind in (ReaderOptions, VLLMOptions):
        with pytest.raises(ConfigError, match="max_model_len="):
            read_options(kind, {"max_model_len": length})
    assert [read_options(ReaderOptions, {"max_model_len": right}).max_model_len for right in ("-1", "64")] == [-1, 64]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ({"base_url": "http://127.0.0.1:9", "ar": "vllm"}, "needs a server for the AR too"),
        ({"base_url": "http://127.0.0.1:9", "adapter": "keep"}, "adapter=keep would change nothing"),
        ({"ar_base_url": "http://127.0.0.1:9", "ar": "built-in"}, "leaves it out"),
    ],
)
def test_options_of_the_ar_are_checked_before_an_engine_starts(typed: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_options(VLLMOptions, typed).check("float32")


def test_a_url_is_one_option() -> None:
    options = read_options(ReaderOptions, {"base_url": "http://127.0.0.1:8000"})
    assert (options.base_url, options.max_model_len) == ("http://127.0.0.1:8000", -1)
    with pytest.raises(ConfigError, match="in 4 bits"):
        EngineOptions().check("4bit")


class FakeServer(BaseHTTPRequestHandler):
    """Answers as the test says, by path."""

    replies: ClassVar[dict[str, tuple[int, Any]]] = {}

    def _reply(self) -> None:
        status, said = self.replies[self.path]
        body = json.dumps(said).encode() if not isinstance(said, bytes) else said
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = _reply  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(vllm_server, "require_client", lambda: None)
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeServer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    FakeServer.replies = {"/v1/models": (200, {"data": [{"id": "m", "root": "/models/m"}, {"id": "lora", "root": "/adapters/a"}]})}
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_the_served_model_is_chosen_by_name_or_folder(url: str) -> None:
    assert VLLMServer(url, served="lora").model == "lora"
    assert VLLMServer(f"{url}/v1/", expected=("/models/m",)).model == "m"
    with pytest.raises(ConfigError, match=r"serves m, lora\. Expected /models/other\. Start the server on that model"):
        VLLMServer(url, expected=("/models/other",))
    with pytest.raises(ConfigError, match="and not aware; give one of its names"):
        VLLMServer(url, served="aware")
    with pytest.raises(ConfigError, match=r"serves m, lora\. Start the server"):
        VLLMServer(url)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ((400, {"error": {"message": "This model's maximum context length is 8 tokens."}}), "status 400: This model's maximum"),
        ((200, b"<html>"), "No vLLM server answers"),
        ((200, {"choices": []}), "a reply of another form"),
    ],
)
def test_what_a_server_says_is_told_in_one_line(reply: tuple[int, Any], message: str, url: str) -> None:
    FakeServer.replies["/v1/completions"] = reply
    with pytest.raises(EngineError, match=message) as told:
        VLLMServer(url, served="m").read([[1, 2, 3]], 0)
    assert "\n" not in str(told.value)


def test_no_server_and_no_address_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_server, "require_client", lambda: None)
    with pytest.raises(EngineError, match=r"No vLLM server answers at http://127.0.0.1:9 .*vllm serve MODEL --host 127.0.0.1"):
        VLLMServer("http://127.0.0.1:9")
    for wrong in ("8000", "ftp://host", "http://", "http://user:pass@host:8000"):
        with pytest.raises(ConfigError, match="Invalid base_url") as told:
            VLLMServer(wrong)
        assert "pass@" not in str(told.value)


@pytest.mark.parametrize("said", [{"data": None}, {"data": ["m"]}, {}])
def test_another_kind_of_server_is_told(said: Any, url: str) -> None:
    FakeServer.replies["/v1/models"] = (200, said)
    with pytest.raises(HarnessError, match="another form than vLLM's"):
        VLLMServer(url)


@pytest.mark.slow
def test_processes_of_vllm_do_not_outlive_a_killed_command() -> None:
    code = "import subprocess, time; from nla.engine.vllm_watch import start_watch; start_watch(); "
    code += "run = lambda name: subprocess.Popen(['bash', '-c', f'exec -a {name} sleep 300']).pid; "
    code += "print(run('VLLM::Worker'), run('other'), flush=True); time.sleep(300)"
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker, other = (psutil.Process(int(pid)) for pid in parent.stdout.readline().split())
    try:
        time.sleep(5)  # the watching process starts, and looks once a second
        assert worker.is_running()
        parent.kill()
        parent.wait(10)
        worker.wait(20)
        assert other.is_running()
    finally:
        other.kill()


def test_where_an_engine_runs_is_no_setting_of_a_scoring() -> None:
    here, there, built_in = (
        settings_of(make_rescore({"model_args": args}))
        for args in ({"read_with": "vllm:base_url=http://a:1"}, {"read_with": "vllm:gpu_memory=0.3"}, {})
    )
    assert here == there != built_in
