"""The one reader of logs: the newest successful log of each cell, and warnings about logs that are left out."""

import json
import os
import shutil
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.log import EvalLog, read_eval_log, write_eval_log
from inspect_ai.solver import generate

from audit import logs
from audit.config import CONFIG_FILE
from audit.logs import log_headers, newest_finished, newest_of_cells, read_log, set_unreadable_aside
from nla.support.errors import DataError


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> EvalLog:
    """A finished log of two samples of a mock model."""
    folder = tmp_path_factory.mktemp("finished")
    task = Task(dataset=[Sample(id=i, input=f"What is {i}?") for i in range(2)], solver=generate(), name="quiz")
    return eval(task, model="mockllm/model", display="none", log_dir=str(folder))[0]


def write(log: EvalLog, path: Path, *, hours: float = 0, task: str | None = None, status: str = "success", **spec: Any) -> Path:
    """Write a log as if it had been made some hours later by another run of a task."""
    created = (datetime.now(UTC) + timedelta(hours=hours)).isoformat(timespec="seconds")
    changes = {"eval_id": f"{path}", "run_id": f"{path}", "created": created} | ({"task": task} if task else {}) | spec
    path.parent.mkdir(parents=True, exist_ok=True)
    changed = log.model_copy(update={"eval": log.eval.model_copy(update=changes), "status": status, "location": ""})
    write_eval_log(changed, str(path))
    return path


def names(paths: list[Path], warnings: list[str] | None = None) -> list[str]:
    said = [] if warnings is None else warnings
    return sorted(Path(log.location).name for log in newest_of_cells(paths, said.append))


def test_of_several_logs_of_a_cell_only_the_newest_successful_one_counts(finished: EvalLog, tmp_path: Path) -> None:
    write(finished, tmp_path / "first.eval")
    write(finished, tmp_path / "second.eval", hours=1)
    write(finished, tmp_path / "killed.eval", hours=2, status="started")
    write(finished, tmp_path / "other_task.eval", task="essay")
    write(finished, tmp_path / "other_model.eval", model="mockllm/other")
    write(finished, tmp_path / "other_arguments.eval", task_args={"system": "evaluation"})
    os.utime(tmp_path / "first.eval")  # the time of creation counts, not that of a copy or a touch
    warnings: list[str] = []
    assert names([tmp_path], warnings) == ["other_arguments.eval", "other_model.eval", "other_task.eval", "second.eval"]
    assert [warning.split(" are ")[0] for warning in warnings] == ["1 older logs"]
    assert names([tmp_path / "first.eval", tmp_path / "first.eval"]) == ["first.eval"]
    assert names([tmp_path / "first.eval", tmp_path]) == names([tmp_path])
    assert all(len(log.samples or []) == 2 for log in newest_of_cells([tmp_path], warnings.append))


def test_parts_of_a_data_set_are_cells_of_their_own(finished: EvalLog, tmp_path: Path) -> None:
    for part in ((0, 2), (2, 4)):
        write(finished, tmp_path / f"from{part[0]}.eval", config=finished.eval.config.model_copy(update={"limit": part}))
    for limit in (1, 2):  # a longer run of the same items replaces the shorter one
        write(finished, tmp_path / f"first{limit}.eval", hours=limit, config=finished.eval.config.model_copy(update={"limit": limit}))
    assert names([tmp_path]) == ["first2.eval", "from0.eval", "from2.eval"]


def test_in_an_audit_a_cell_is_a_condition_and_a_task_whatever_the_arguments(finished: EvalLog, tmp_path: Path) -> None:
    for condition in ("base", "steered"):
        write(finished, tmp_path / "logs" / condition / f"{condition}1.eval")
        write(finished, tmp_path / "logs" / condition / f"{condition}2.eval", hours=1, task_args={"new_parameter": 1})
    assert len(names([tmp_path])) == 2  # without its config the folder is no audit, and only the settings tell cells apart
    (tmp_path / CONFIG_FILE).write_text("{}")
    assert names([tmp_path]) == names([tmp_path / "logs"]) == ["base2.eval", "steered2.eval"]
    assert names([tmp_path / "logs" / "base"]) == ["base2.eval"]
    assert [Path(log.location).name for log in newest_finished(tmp_path / "logs" / "base")] == ["base2.eval"]
    assert newest_finished(tmp_path / "none") == []


def test_a_scored_copy_of_a_log_replaces_the_original_and_temporary_files_are_ignored(finished: EvalLog, tmp_path: Path) -> None:
    original = write(finished, tmp_path / "logs" / "run.eval")
    (tmp_path / "audited").mkdir()
    shutil.copy(original, tmp_path / "audited" / "run.eval")
    os.utime(tmp_path / "audited" / "run.eval", (9e9, 9e9))
    shutil.copy(original, tmp_path / "audited" / ".run.tmp.eval")
    [log] = newest_of_cells([tmp_path])
    assert Path(log.location).parent.name == "audited"


def test_unreadable_and_unfinished_logs_are_named_and_skipped(
    finished: EvalLog, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = write(finished, tmp_path / "good.eval")
    older, newest = write(finished, tmp_path / "older.eval", task="x"), write(finished, tmp_path / "newest.eval", hours=1, task="x")
    (tmp_path / "cut.eval").write_bytes(good.read_bytes()[:2000])
    (tmp_path / "text.eval").write_text("no log")
    write(finished, tmp_path / "stopped.eval", task="y", status="cancelled")
    with zipfile.ZipFile(newest) as whole, zipfile.ZipFile(tmp_path / "scratch", "w") as packed:
        for member in whole.namelist():
            packed.writestr(member, b"{" if member.startswith("samples/") else whole.read(member))
    shutil.move(tmp_path / "scratch", newest)  # its header can be read, and its samples cannot
    warnings: list[str] = []
    assert names([tmp_path], warnings) == ["good.eval", older.name]
    said = "\n".join(warnings)
    assert all(f"{name}.eval" in said for name in ("cut", "text", "stopped", "newest"))
    assert "good.eval" not in said
    assert list(newest_of_cells([tmp_path / "cut.eval"])) == []
    assert "cut.eval cannot be read as an Inspect log" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"cut\.eval cannot be read .* delete it and run that task again"):
        read_log(str(tmp_path / "cut.eval"))
    with pytest.raises(DataError, match="does not exist"):
        log_headers([tmp_path / "nothing.eval"])


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b"[" * 100_000, b'{"version": 2, "eval": 1e999}', b"\xff\xfe", b'{"eval": "\\ud800"}']
)
def test_whatever_a_json_log_contains_it_is_named_and_skipped(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "2026-01-01T00-00-00_quiz_x.json"
    path.write_bytes(content)
    warnings: list[str] = []
    assert names([tmp_path], warnings) == []
    assert [path.name in warning for warning in warnings] == [True]


def test_a_log_with_an_impossible_date_is_skipped(finished: EvalLog, tmp_path: Path) -> None:
    path = write(finished, tmp_path / "log.json")
    content = json.loads(path.read_text())
    content["eval"]["created"] = "yesterday"
    path.rename(tmp_path / "2026-01-01T00-00-00_quiz_x.json").write_text(json.dumps(content))
    warnings: list[str] = []
    assert names([tmp_path], warnings) == []
    assert len(warnings) == 1


def test_a_log_that_would_unpack_to_more_than_memory_is_refused_before_it_is_unpacked(
    finished: EvalLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(finished, tmp_path / "log.eval")
    assert read_eval_log(str(path)).samples
    monkeypatch.setattr(logs, "_MOST_UNPACKED", 100)
    with pytest.raises(DataError, match="unpacks to"):
        read_log(str(path))


def test_a_log_with_a_damaged_sample_is_set_aside_so_that_its_cell_is_run_again(finished: EvalLog, tmp_path: Path) -> None:
    write(finished, tmp_path / "good.eval")
    path = write(finished, tmp_path / "log.eval")
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(tmp_path / "scratch", "w") as packed:
        for member in whole.namelist():
            packed.writestr(member, b"{" if member.startswith("samples/") else whole.read(member))
    shutil.move(tmp_path / "scratch", path)
    assert read_log(str(path), header_only=True).status == "success"
    warnings: list[str] = []
    assert set_unreadable_aside(tmp_path, warnings.append) == [tmp_path / "log.eval.unreadable"]
    assert len(warnings) == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["good.eval", "log.eval.unreadable"]
