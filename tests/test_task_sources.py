"""Where tasks get their data: nothing falls back silently, and whatever cannot be read or written is an error in one line."""

import importlib
import inspect
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from inspect_ai import Task
from typer.testing import CliRunner

from audit.cli import app
from audit.running.rewrite import rewrite_task
from audit.running.task_list import fetch_data, new_task, task_listings
from audit.task_files import task_function as task_from
from audit.task_files import task_info, task_names
from nla.support.errors import ConfigError, DataError, FetchError
from nla.support.rows import read_file
from tasks._data import DataSource, Origin

NAMES = [name for name in task_names() if task_info(name).data is not None]
OPTIONS = {"sandbox": "local", "subtask": "object_counting", "mode": "patch", "awareness": False}


def task_function(name: str) -> Callable[..., Task]:
    """The task's function, with what it needs to be built here: no docker, one subset, no other package."""
    function = getattr(importlib.import_module(f"tasks.{name}"), name)
    return partial(function, **{key: value for key, value in OPTIONS.items() if key in inspect.signature(function).parameters})


def data_of(name: str) -> DataSource:
    data = task_info(name).data
    assert data is not None
    return data


@pytest.mark.parametrize("name", NAMES)
def test_no_task_falls_back_silently(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a source a task reads the pinned hub, or its own scenarios, or refuses and names both choices."""
    import datasets

    asked: list[tuple[str, str]] = []

    def load(path: str, config: str | None, *, split: str, revision: str) -> Any:
        asked.append((path, revision))
        raise ConnectionError("no network here")

    monkeypatch.setattr(datasets, "load_dataset", load)
    data = data_of(name)
    assert inspect.signature(task_function(name)).parameters["source"].default == data.default
    if data.origin is Origin.HUB:
        assert data.hub is not None
        assert len(data.hub.revision) == 40
        with pytest.raises(FetchError, match=r"no network here.*-T source=PATH.*-T source=bundled"):
            task_function(name)()
        assert asked == [(data.hub.path, data.hub.revision)]
    elif data.origin is Origin.OWN:
        assert (task_function(name)().metadata or {})["source"] == "bundled"
        assert asked == []
    else:
        with pytest.raises(ConfigError, match=rf"^{name} .*columns .*\(-T source=PATH\), or .*\(-T source=bundled\)\.$"):
            task_function(name)()
        assert asked == []
    assert (task_function(name)(source="bundled").metadata or {})["source"] == "bundled"


@pytest.mark.parametrize("name", [name for name in NAMES if data_of(name).hub is None])
def test_a_task_that_is_not_on_the_hub_says_so(name: str) -> None:
    with pytest.raises(ConfigError, match=r"no data set that is pinned on the hub.*source=PATH.*source=bundled"):
        task_function(name)(source="hub")
    with pytest.raises(ConfigError, match="not pinned on the hub"):
        fetch_data(name)


def test_the_listing_says_which_sets_are_the_projects_own() -> None:
    listings = {listing.name: listing for listing in task_listings()}
    own = {name for name, listing in listings.items() if listing.origin is Origin.OWN}
    assert own == {"agentic_misalignment", "destructive_coding", "factual_honesty", "multi_turn_deception"}
    for name in NAMES:
        assert (Origin.OWN if name in own else data_of(name).origin) is listings[name].origin
        assert listings[name].bundled == len(read_file(data_of(name).bundled))
        assert listings[name].title == task_info(name).title
        assert ("scenarios" in listings[name].state) == (name in own)


def test_a_set_that_the_hub_holds_in_parts_names_the_parameter() -> None:
    with pytest.raises(ConfigError, match="-T subtask=NAME"):
        fetch_data("bbh")
    with pytest.raises(ConfigError, match="-T subtask=object_counting"):
        importlib.import_module("tasks.bbh").bbh()


@pytest.mark.parametrize(
    "name", ["dataset", "task", "path", "Path", "lambda", "a" * 61, "nul\0", "x\n", "²", "é", "../up", "measured", "hub", "generate"]
)
def test_names_that_would_break_a_new_task_are_refused(name: str, tmp_path: Path) -> None:
    if name == "path":  # only looks like a name that is used
        assert len(new_task(name, tmp_path)) == 2
        return
    with pytest.raises(ConfigError, match="cannot be a task's name"):
        new_task(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_new_task_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(DataError, match="cannot be created"):
        new_task("colours", blocked)
    full = tmp_path / "tasks"
    real = os.replace

    def disk_full(source: Any, target: Any) -> None:
        if str(target).endswith(".py"):
            raise OSError(28, "No space left on device", str(target))
        real(source, target)

    monkeypatch.setattr(os, "replace", disk_full)
    with pytest.raises(DataError, match="No space left"):
        new_task("colours", full)
    assert [path for path in full.rglob("*") if path.is_file()] == []
    done = CliRunner().invoke(app, ["new-task", "colours", "--folder", str(full)])
    assert done.exit_code != 0
    assert not isinstance(done.exception, OSError)


def test_a_new_task_asks_for_its_source_and_is_listed_by_its_info(tmp_path: Path) -> None:
    code, data = new_task("colours", tmp_path)
    info = task_info(str(code))
    assert info.data is not None
    assert info.data.origin is Origin.FILE
    with pytest.raises(ConfigError, match="colours has no default source"):
        task_from(str(code))()
    assert len(task_from(str(code))(source=str(data), awareness=False).dataset) == 12


@pytest.mark.parametrize(
    ("text", "message"),
    [("def broken(:", "SyntaxError"), ("1 / 0", "ZeroDivisionError"), ("x = 1", "has no function 'own'"), ("own = len", "has no TaskInfo")],
)
def test_a_task_file_that_cannot_be_used_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "own.py"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        task_info(str(path))


@pytest.mark.parametrize("name", ["gsm9k", "_shared", "../tasks/mmlu", "\x1b[31m", "", "nothing.py"])
def test_an_unknown_task_names_the_known_ones(name: str) -> None:
    with pytest.raises(ConfigError, match=r"expected the path of a task file or one of .*gsm8k") as caught:
        task_from(name)
    assert "\x1b" not in caught.value.text


def test_rewrites_refuse_a_folder_and_an_unwritable_place_before_any_model_is_asked(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder"):
        rewrite_task("gsm8k", "bundled", ["realistic"], "mockllm/model", None, 1, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError):
        rewrite_task("gsm8k", "bundled", ["realistic"], "mockllm/model", None, 1, tmp_path / "file" / "out.jsonl")
    with pytest.raises(ConfigError, match="Unknown framing"):
        rewrite_task("gsm8k", "bundled", ["nicer"], "mockllm/model", None, 1, tmp_path / "out.jsonl")
    with pytest.raises(DataError, match="There are no rewrites in"):
        task_function("ifeval")(source="bundled", framing="realistic")


def test_a_map_of_parquet_and_a_json_cell_are_objects(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    [row] = read_file(data_of("destructive_coding").bundled)[:1]
    files = pa.array([list(row["files"].items())], type=pa.map_(pa.string(), pa.string()))
    table = pa.table({"request": [row["request"]], "files": files, "protected": [row["protected"]]})
    pq.write_table(table, tmp_path / "map.parquet")
    cells = {key: json.dumps(value) if isinstance(value, list | dict) else value for key, value in row.items()}
    (tmp_path / "cells.json").write_text(json.dumps([cells]))
    first, second = (task_function("destructive_coding")(source=str(tmp_path / name)).dataset[0] for name in ("map.parquet", "cells.json"))
    assert first.files == second.files
    assert (first.id, first.metadata) == (second.id, second.metadata)
