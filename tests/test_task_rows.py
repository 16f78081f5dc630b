"""Whatever the rows of a data set hold, every task ends as a task or as an error of ours, and its samples can be written to a log."""

import csv
import importlib
import inspect
import json
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from inspect_ai import Task, eval
from inspect_ai.model import ModelOutput, ModelUsage, get_model

from audit.task_files import task_info, task_names
from nla.support.display import visible
from nla.support.errors import ConfigError, DataError, HarnessError
from nla.support.rows import Row, read_file
from tasks._fields import DataRow, shown
from tasks._framing import FRAMINGS, read_rewrites
from tests.fuzz_inputs import inputs

NAMES = [name for name in task_names() if task_info(name).data is not None]
NASTY: list[Any] = [
    None, "", "  ", 0, -1, 1.5, float("nan"), float("inf"), True, 10**30, [], {}, [[]], [None], {"": None}, {"text": 3, "label": [1]},
    {"choices": ["a"], "labels": [1, 0]}, [{"role": "user"}], [{"role": None, "content": {}}], [["user", "hi"]], ["a", "a"], "[1", "NaN",
    "null", '["a"]', "\ud800", "\x1b]0;x\x07\u202e", "a\x00b", "x" * 200_000, "{prompt}{0}{choices}", {"../up": "x", "/abs": "y"}, "²",
]  # fmt: skip
CELLS = st.sampled_from(NASTY) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
FORMS = ("jsonl", "csv", "parquet")


def task_function(name: str) -> Callable[..., Task]:
    function = getattr(importlib.import_module(f"tasks.{name}"), name)
    options = {"sandbox": "local", "sha256": "any", "language": None if name == "wildchat" else "default"}
    return partial(function, **{option: value for option, value in options.items() if option in inspect.signature(function).parameters})


@cache
def bundled_rows(name: str) -> list[Row]:
    data = task_info(name).data
    assert data is not None
    return read_file(data.bundled)[:3]


@st.composite
def mutated(draw: st.DrawFn, name: str) -> list[Row]:
    """Bundled rows with up to three cells replaced, removed, or added under another name."""
    rows = [dict(row) for row in bundled_rows(name)[: draw(st.integers(1, 3))]]
    for _ in range(draw(st.integers(1, 3))):
        row = draw(st.sampled_from(rows))
        column = draw(st.sampled_from([*sorted(row), "id", "messages", "instruction", "choices", "Best Answer"]))
        action = draw(st.sampled_from(["replace", "replace", "replace", "inside", "remove"]))
        if action == "remove":
            row.pop(column, None)
        elif action == "inside" and isinstance(row.get(column), list | dict) and row[column]:
            inner: Any = json.loads(json.dumps(row[column]))
            keys: list[Any] = sorted(inner) if isinstance(inner, dict) else list(range(len(inner)))
            inner[draw(st.sampled_from(keys))] = draw(CELLS)
            row[column] = inner
        else:
            row[column] = draw(CELLS)
    return rows


def written(rows: list[Row], form: str, folder: Path) -> Path:
    """The rows as a file; lists and objects in a CSV file as JSON. Parquet falls back to JSON lines where it has no common type."""
    path = folder / f"rows.{form}"
    if form == "parquet":
        try:
            pq.write_table(pa.Table.from_pylist(rows), path)
            return path
        except (pa.ArrowException, UnicodeError, OverflowError, ValueError, TypeError, AttributeError):
            path = folder / "rows.jsonl"
    if form == "csv":
        with path.open("w", encoding="utf-8", errors="surrogatepass", newline="") as file:
            table = csv.DictWriter(file, list(dict.fromkeys(column for row in rows for column in row)))
            table.writeheader()
            table.writerows(
                {key: json.dumps(value) if isinstance(value, list | dict) else value for key, value in row.items()} for row in rows
            )
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def loaded(name: str, path: Path) -> tuple[Task | None, str]:
    """The task, or the message of the error of ours that refuses the file."""
    try:
        return task_function(name)(source=str(path), awareness=False), ""
    except HarnessError as ex:
        return None, ex.text


def check_loads_or_refuses(name: str, rows: list[Row], form: str) -> Task | None:
    with tempfile.TemporaryDirectory() as folder:
        task, refusal = loaded(name, written(rows, form, Path(folder)))
    if task is None:
        assert len(refusal) < 1_000
        assert visible(refusal) == refusal  # so in one line
        return None
    for sample in task.dataset:
        json.dumps(sample.model_dump(mode="json"), allow_nan=False).encode()
        assert sample.id is not None
        assert str(sample.id) != "None"
    return task


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=inputs(20), deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), form=st.sampled_from(FORMS))
def test_mutated_rows_give_a_task_or_an_error_of_ours(name: str, data: st.DataObject, form: str) -> None:
    check_loads_or_refuses(name, data.draw(mutated(name)), form)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", FORMS)
def test_unchanged_rows_load_from_every_kind_of_file(name: str, form: str) -> None:
    task = check_loads_or_refuses(name, bundled_rows(name), form)
    assert task is not None
    with_default = {str(sample.id): (str(sample.target), sample.choices) for sample in task_function(name)(source="bundled").dataset}
    read = {str(sample.id): (str(sample.target), sample.choices) for sample in task.dataset}
    if form == "csv" or name not in ("destructive_coding", "swe_bench", "truthfulqa"):
        assert read.items() <= with_default.items()
    assert len(read) >= 1


@pytest.mark.parametrize("name", NAMES)
def test_every_column_with_a_null_or_of_the_wrong_type_is_used_or_named(name: str) -> None:
    first = bundled_rows(name)[0]
    for column in first:
        for value in (None, float("nan"), [], {}, 7):
            with tempfile.TemporaryDirectory() as folder:
                task, refusal = loaded(name, written([{**first, column: value}], "jsonl", Path(folder)))
            if task is None and "is left" not in refusal:  # a conversation without a user turn is left out
                assert "row 1 of" in refusal
                assert column.partition(" ")[0] in refusal or "option" in refusal
                assert "expected" in refusal or "no column" in refusal


def test_file_contents_that_name_files_of_the_user_are_taken_literally(tmp_path: Path) -> None:
    """Inspect would read a content that is a path; the agent sees the path itself."""
    secret = tmp_path / "secret.txt"
    secret.write_text("the user's own")
    rows = [{"request": "look", "files": {"a.txt": str(secret), "b.txt": str(tmp_path)}, "protected": ["a.txt"]}]
    path = written(rows, "jsonl", tmp_path)
    outputs = [ModelOutput.for_tool_call("mockllm/model", "bash", {"command": "cat a.txt b.txt"}), ModelOutput.from_content("m", "done")]
    for output in outputs:
        output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
    model = get_model("mockllm/model", custom_outputs=outputs, memoize=False)
    log = eval(task_function("destructive_coding")(source=str(path), awareness=False), model=model, display="none", log_dir=str(tmp_path))[
        0
    ]
    assert log.status == "success", log.error
    seen = "".join(message.text for message in (log.samples or [])[0].messages)
    assert "the user's own" not in seen
    assert str(secret) in seen


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "", "env:x", "a\nb", "."])
def test_file_names_that_lead_elsewhere_are_refused(name: str) -> None:
    row = DataRow({"files": {name: "x"}}, "task", "rows.jsonl", 4)
    with pytest.raises(DataError, match=r"row 4 of 'rows.jsonl', column 'files.*expected a relative file name"):
        row.files("files")


@given(
    st.lists(st.fixed_dictionaries({}, optional={"id": CELLS, "framing": CELLS | st.sampled_from(FRAMINGS), "spans": CELLS}), max_size=3)
)
@example([{"id": "a", "framing": "realistic", "spans": [{"old": "x", "new": ""}, ["y", "z"]]}])
@settings(max_examples=inputs(200), deadline=None)
def test_any_file_of_rewrites_is_read_or_refused(rows: list[Row]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = written(rows, "jsonl", Path(folder))
        try:
            rewrites, refusal = read_rewrites(path), ""
        except DataError as ex:
            rewrites, refusal = [], ex.text
    assert visible(refusal) == refusal
    assert refusal or len(rewrites) == len(rows)
    assert all(rewrite.framing in FRAMINGS for rewrite in rewrites)


def test_deep_and_long_values_are_shown_short() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    assert shown(deep) == "list of many levels" or len(shown(deep)) < 100
    assert len(shown("x" * 10**6)) < 100
    assert "\x1b" not in shown("\x1b[31m")
    with pytest.raises(DataError, match="expected a list"):
        DataRow({"turns": "[" * 100_000}, "task", "file", 1).texts("turns")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sharegpt", {"turns": "many"}, "Invalid turns=many: expected a valid integer"),
        ("sharegpt", {"turns": 0}, "Invalid turns=0: expected greater than 0"),
        ("mmlu", {"fewshot": -1}, "Invalid fewshot=-1"),
        ("arc", {"cot": "perhaps"}, "Invalid cot=perhaps: expected a valid boolean"),
        ("arc", {"awareness": "perhaps"}, "Invalid awareness=perhaps"),
        ("arc", {"system": ["a"]}, "Invalid system"),
        ("arc", {"tokenz": 3}, "Unknown parameter tokenz of arc; expected one of .* Did you mean 'tokens'"),
        ("xstest", {"label": "odd"}, "Invalid label=odd: expected 'safe', 'unsafe' or 'all'"),
        ("arc", {"framing": "nicer"}, "Invalid framing=nicer"),
    ],
)
def test_parameters_of_the_wrong_type_are_refused_in_one_line(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}.*$"):
        task_function(name)(source="bundled", **options)


def test_a_number_is_taken_as_a_text_where_a_text_is_expected() -> None:
    task = task_function("arc")(source="bundled", system=5, awareness=False)
    assert task.setup is not None
