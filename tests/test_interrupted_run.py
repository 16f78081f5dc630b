"""`audit run` under Ctrl-C, beside a second run, and over logs that were cut off: nothing is lost, doubled or falsely complete."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from inspect_ai import eval_set
from inspect_ai.log import EvalLog, list_eval_logs, read_eval_log

import audit
from audit.cells import missing_cells
from audit.config import make_audit, stored_config
from audit.running.run import run_audit
from nla.support.errors import StoppedError
from nla.support.locks import exclusive_lock
from tests.prepared import Forked, Prepared

Folder = Callable[[str], Path]


def flags(model: Path, out: Path, limit: int) -> list[str]:
    return [
        *("--model", f"local/{model}", "--model-args", "dtype=float32,threads=1", "--tasks", "mmlu,wildchat", "--source", "bundled"),
        *("--limit", str(limit), "--tokens", "2", "--max-tokens", "40", "--verbalizer", "logit_lens", "--controls", "0"),
        *("--no-positive-control", "--out", str(out)),
    ]


def started(out: Path, process: Forked, name: str) -> None:
    """Wait until the run has begun a task."""
    for _ in range(1_200):
        if process.poll() is not None or list(out.glob(f"logs/base/*{name}*.eval")):
            return
        time.sleep(0.1)


@pytest.fixture(autouse=True)
def _ctrl_c_as_in_a_terminal() -> Iterator[None]:
    """A shell starts background jobs with Ctrl-C ignored, and their children inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
def test_ctrl_c_stops_the_audit_and_the_same_command_resumes_it(tiny_folder: Folder, tmp_path: Path, prepared: Prepared) -> None:
    out = tmp_path / "audit"
    command = ("audit", "run", *flags(tiny_folder("llama"), out, 16))
    process = prepared.start(*command, own_session=True)
    started(out, process, "mmlu")
    os.killpg(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    assert "the same command resumes" in stderr
    assert "Traceback" not in stderr
    assert "Evaluation awareness" not in stdout
    assert not (out / "audit.json").exists()
    assert missing_cells(stored_config(out), out)
    finished = {s.uuid for info in list_eval_logs(str(out / "logs")) for s in read_eval_log(info).samples or [] if not s.error}
    resumed = prepared.run(*command)
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads((out / "audit.json").read_text())["missing"] == []
    transcripts = audit.read_result(out).transcripts
    assert set(transcripts.groupby(["condition", "task"]).size()) == {16}
    assert set(transcripts["task"]) == {"mmlu", "wildchat"}
    newest = {s.uuid for info in list_eval_logs(str(out / "logs")) for s in read_eval_log(info).samples or []}
    assert finished <= newest


def test_ctrl_c_that_a_library_swallows_still_stops_the_audit(tiny_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def swallowing(*arguments: Any, **settings: Any) -> tuple[bool, list[EvalLog]]:
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        return eval_set(*arguments, **settings)

    monkeypatch.setattr("audit.running.run.eval_set", swallowing)
    fields = {"model": f"local/{tiny_folder('llama')}", "model_args": {"dtype": "float32", "threads": 1}, "tasks": ["wildchat"]}
    fields |= {"source": "bundled", "limit": 1, "tokens": 2, "max_tokens": 4, "verbalizer": "logit_lens", "positive_control": False}
    config = make_audit(fields | {"steer": [0.5]}, "test")
    with pytest.raises(StoppedError, match="the same command resumes"):
        run_audit(config, tmp_path)
    assert ("base", "wildchat") not in missing_cells(config, tmp_path)
    assert missing_cells(config, tmp_path)


@pytest.mark.slow
def test_a_second_run_into_the_same_folder_is_refused_and_names_the_first(tiny_folder: Folder, tmp_path: Path, prepared: Prepared) -> None:
    out = tmp_path / "audit"
    with exclusive_lock(out, "audit run", folder=True):  # as a run holds it from its first cell to its last
        second = prepared.run("audit", "run", *flags(tiny_folder("llama"), out, 2))
    assert second.returncode == 2, second.stderr
    assert str(os.getpid()) in second.stderr
    assert "Traceback" not in second.stderr
    assert not list(out.glob("logs/*/*.eval"))


def test_a_log_that_was_cut_off_is_kept_aside_and_its_cell_runs_again(tiny_folder: Folder, tmp_path: Path) -> None:
    fields = {"model": f"local/{tiny_folder('llama')}", "model_args": {"dtype": "float32", "threads": 1}, "tasks": ["wildchat"]}
    fields |= {"source": "bundled", "limit": 2, "tokens": 2, "max_tokens": 6, "verbalizer": "logit_lens", "positive_control": False}
    config = make_audit(fields, "test")
    run_audit(config, tmp_path)
    [log] = (tmp_path / "logs" / "base").glob("*.eval")
    log.write_bytes(log.read_bytes()[:2_000])
    assert missing_cells(config, tmp_path) == [("base", "wildchat")]
    warnings: list[str] = []
    run_audit(config, tmp_path, warnings.append)
    assert missing_cells(config, tmp_path) == []
    assert any(log.name in warning for warning in warnings)
    assert log.with_name(f"{log.name}.unreadable").read_bytes() == log.with_name(f"{log.name}.unreadable").read_bytes()[:2_000]
    assert audit.analyze(tmp_path).missing == []


def test_a_cell_without_a_log_is_named_in_the_result(tiny_folder: Folder, tmp_path: Path) -> None:
    fields = {"model": f"local/{tiny_folder('llama')}", "model_args": {"dtype": "float32", "threads": 1}, "tasks": ["wildchat"]}
    fields |= {"source": "bundled", "limit": 2, "tokens": 2, "max_tokens": 6, "verbalizer": "logit_lens"}
    run_audit(make_audit(fields, "test"), tmp_path)
    for log in (tmp_path / "logs" / "positive_control").glob("*.eval"):
        log.unlink()
    result = audit.analyze(tmp_path)
    assert result.missing == [("positive_control", "wildchat")]
