"""The three files of an analysed audit: one generation, whatever a kill leaves, and nothing but documented errors from foreign content."""

import copy
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit.analysis.analyze import analyze_tables
from audit.analysis.compare import compare
from audit.analysis.result import read_result
from audit.analysis.stored import StoredAudit, read_stored, read_transcripts, write_stored
from audit.analysis.texts import frame
from audit.config import make_audit
from audit.terminal import controls_table, result_table
from nla.support.errors import DataError, HarnessError
from reports.build import build_report
from reports.figures import all_figures
from reports.markdown import markdown
from reports.transcript_data import transcript_data
from tests.commands import typed
from tests.fuzz_inputs import inputs
from tests.test_audit_run import transcripts as base_table
from tests.test_report import CONTROLS, explanations, table

FILES = ("audit.json", "transcripts.parquet", "explanations.parquet")


def analysed(rows: pd.DataFrame, told: pd.DataFrame) -> StoredAudit:
    config = make_audit({"model": "local/tiny", "tasks": ["mmlu"], "steer": [0.1]}, "test")
    return StoredAudit(analyze_tables(rows, config, None, CONTROLS, told), rows, told)


@functools.cache
def small() -> StoredAudit:
    rows = table(3)
    return analysed(rows, explanations(rows))


def test_the_three_files_carry_one_generation_that_depends_on_their_content(tmp_path: Path) -> None:
    first = write_stored(small(), tmp_path)
    generation = json.loads((tmp_path / "audit.json").read_text())["generation"]
    assert len(generation) == 64
    for name in FILES[1:]:
        assert pq.read_schema(tmp_path / name).metadata[b"awareness_generation"].decode() == generation
    read = read_stored(tmp_path)
    assert read.result == first.result
    pd.testing.assert_frame_equal(read.explanations, small().explanations)
    assert write_stored(small(), tmp_path).result.generation == generation
    other = replace(small(), explanations=small().explanations.assign(explanation="another"))
    assert write_stored(other, tmp_path).result.generation != generation


@pytest.mark.parametrize("stale", FILES)
def test_a_file_of_another_analysis_is_refused_by_report_and_compare(tmp_path: Path, stale: str) -> None:
    (tmp_path / "a").mkdir()
    write_stored(small(), tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    rows = table(3).assign(internal=0.0)
    write_stored(analysed(rows, explanations(rows, "other words")), tmp_path / "b")
    shutil.copy(tmp_path / "a" / stale, tmp_path / "b" / stale)
    with pytest.raises(DataError, match=r"different analyses.*Run `audit analyze --out"):
        read_stored(tmp_path / "b")
    if stale != "explanations.parquet":  # a comparison does not read the explanations
        with pytest.raises(DataError, match="different analyses"):
            compare(tmp_path / "a", tmp_path / "b")


@pytest.mark.slow
def test_the_report_command_refuses_torn_files_in_two_lines(tmp_path: Path) -> None:
    write_stored(small(), tmp_path)
    small().explanations.to_parquet(tmp_path / "explanations.parquet")
    done = typed("audit", "report", str(tmp_path), "-o", str(tmp_path / "out"))
    assert (done.returncode, (tmp_path / "out").exists()) == (2, False), done.stderr
    assert "different analyses" in " ".join(done.stderr.split())
    assert len(done.stderr.strip().splitlines()) <= 4


@pytest.mark.slow
def test_files_of_earlier_versions_are_read_and_not_mixed_with_new_ones(tmp_path: Path) -> None:
    write_stored(small(), tmp_path)
    content = json.loads((tmp_path / "audit.json").read_text())
    for name in ("generation", "unscored", "missing"):
        del content[name]
    for effect in content["rewrites"]:
        del effect["original"], effect["rewritten"]
    (tmp_path / "audit.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="different analyses"):
        read_stored(tmp_path)
    for name, rows in zip(FILES[1:], (small().transcripts, small().explanations), strict=True):
        rows.to_parquet(tmp_path / name)
    (tmp_path / "conversations.parquet").unlink()
    read = read_stored(tmp_path)
    assert (read.result.generation, read.result.cells) == ("", small().result.cells)
    assert len(read_transcripts(tmp_path)) == len(small().transcripts)
    build_report(read, tmp_path / "report")


T = TypeVar("T")


def outcome(read: Callable[[], T]) -> tuple[T | None, str]:
    """What was read, or the message with which it was refused."""
    try:
        return read(), ""
    except DataError as ex:
        return None, str(ex)


WRITER = """
import os, sys
from pathlib import Path
from tests.test_stored_audit import analysed, explanations, table
from audit.analysis.stored import write_stored
audits = []
for text in ("first", "second"):
    rows = table(3).assign(internal=float(text == "first"))
    audits.append(analysed(rows, explanations(rows, text)))
for line in sys.stdin:  # one process writes until it is killed; the next one starts when a line arrives
    child = os.fork()
    while not child:
        for audit in audits:
            write_stored(audit, Path(sys.argv[1]))
    print(child, flush=True)
    os.waitpid(child, 0)
    print("killed", flush=True)
"""


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_one_analysis_or_a_clear_message(tmp_path: Path) -> None:
    rng, read = np.random.default_rng(0), 0
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        for _ in range(5):
            writer.stdin.write("\n")
            child = int(writer.stdout.readline())
            time.sleep(0.3 + float(rng.random()))
            os.kill(child, signal.SIGKILL)
            assert writer.stdout.readline().strip() == "killed"
            audit, refused = outcome(lambda: read_stored(tmp_path))
            if audit is None:
                assert "different analyses" in refused
                continue
            flagged = {"first": 1.0, "second": 0.0}[audit.explanations.explanation.iloc[0]]
            assert set(audit.transcripts.internal) == {flagged}
            assert audit.result.cells[0].internal.scored.estimate == flagged
            read += 1
    assert read > 0
    write_stored(small(), tmp_path)
    assert read_stored(tmp_path).result.cells == small().result.cells


@pytest.mark.slow
def test_odd_values_of_logs_end_in_no_traceback_and_no_invalid_json(tmp_path: Path) -> None:
    rows = table(3).assign(sample_id=[f"id{i}" for i in range(len(table(3)))])
    rows = frame([row | {"unscored_reason": "bad \udfff reason"} for row in rows.to_dict("records")])
    rows.loc[0, ["mean_logprob", "own_score"]] = [-np.inf, np.inf]
    rows.loc[:4, "internal"] = np.nan
    told = explanations(rows).assign(explanation=pd.Series(["lone \udc80 surrogate"] * 3 * len(rows), dtype=object))
    told = told.assign(mse_nrm=[np.nan, np.inf, -np.inf] * len(rows), position=None, evidence=None)
    audit = write_stored(analysed(rows, told), tmp_path)
    assert audit.result.unscored == {"bad \\udfff reason": 5}

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    json.loads((tmp_path / "audit.json").read_text(encoding="utf-8"), parse_constant=refuse)
    read = read_stored(tmp_path)
    assert read.explanations.explanation.iloc[0] == "lone \\udc80 surrogate"
    page = build_report(read, tmp_path / "report").read_text(encoding="utf-8")
    assert "bad \\udfff reason (5)" in page
    index, _ = transcript_data(read)
    json.dumps(index, allow_nan=False)


def test_a_column_of_mixed_types_and_a_table_without_columns_are_named(tmp_path: Path) -> None:
    mixed = small().transcripts.assign(own_score=[{"a": 1}, *["x"] * (len(small().transcripts) - 1)])
    with pytest.raises(DataError, match=r"transcripts\.parquet cannot be written.*own_score"):
        write_stored(replace(small(), transcripts=mixed), tmp_path)
    assert not list(tmp_path.iterdir())
    write_stored(small(), tmp_path)
    base_table(3).drop(columns="task").to_parquet(tmp_path / "transcripts.parquet")
    with pytest.raises(DataError, match="no column log, task, transcript"):
        read_stored(tmp_path)
    (tmp_path / "transcripts.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(DataError, match="cannot be read as a table"):
        read_stored(tmp_path)


@functools.cache
def content() -> dict[str, Any]:
    from audit.analysis.result import result_json

    parsed: dict[str, Any] = json.loads(result_json(small().result))
    return parsed


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    return [path, *(place for key, part in inner for place in places(part, (*path, key)))]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=20) | st.just("\ud800$\x1b[2J"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def changed(place: tuple[Any, ...], value: Any, delete: bool) -> Any:
    if not place:
        return value
    mutated = copy.deepcopy(content())
    target = mutated
    for key in place[:-1]:
        target = target[key]
    if delete:
        del target[place[-1]]
    else:
        target[place[-1]] = value
    return mutated


@settings(max_examples=inputs(30), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_foreign_content_of_a_result_is_read_or_refused_and_never_breaks_a_table(data: st.DataObject, tmp_path: Path) -> None:
    place = data.draw(st.sampled_from(places(content())))
    mutated = changed(place, data.draw(JSON), data.draw(st.booleans()))
    path = tmp_path / "audit.json"
    path.write_text(json.dumps(mutated))
    result, refused = outcome(lambda: read_result(path))
    assert "\n" not in refused
    if result is None:
        return
    from rich.console import Console

    with (tmp_path / "shown").open("w", encoding="utf-8") as file:
        console = Console(file=file, width=80)
        console.print(result_table(result), controls_table(result))
    assert "\x1b" not in (tmp_path / "shown").read_text(encoding="utf-8")
    markdown(result, [])


@pytest.mark.parametrize("prevalence", ["0.01", "0.05", "0.1"])
def test_a_result_without_the_precision_at_a_prevalence_is_refused(prevalence: str, tmp_path: Path) -> None:
    path = tmp_path / "audit.json"
    path.write_text(json.dumps(changed(("measures", "exam", "nla", "precision", prevalence), None, True)))
    with pytest.raises(DataError, match=rf"precision: .*missing: {prevalence}"):
        read_result(path)


@settings(max_examples=inputs(3), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_foreign_content_never_breaks_a_figure(data: st.DataObject, tmp_path: Path) -> None:
    place = data.draw(st.sampled_from([place for place in places(content()) if len(place) > 1]))
    mutated = changed(place, data.draw(st.integers(-(10**11), 10**11) | st.floats(-1e11, 1e11) | st.text(max_size=20)), False)
    path = tmp_path / "audit.json"
    path.write_text(json.dumps(mutated))
    try:
        drawn = all_figures(read_result(path))
    except HarnessError:
        return
    assert all(figure.encoded("svg") for figure in drawn[:2])


@pytest.mark.parametrize(
    "text", ["", "[]", "null", '{"schema_version": 2}', "[" * 100_000, '{"schema_version": 1e999}', "\ufeff{}", "9" * 5_000]
)
def test_broken_results_are_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "audit.json").write_text(text)
    with pytest.raises(DataError) as caught:
        read_result(tmp_path / "audit.json")
    assert "\n" not in str(caught.value)
    assert "audit analyze" in str(caught.value)


def test_what_a_killed_process_left_is_removed_at_the_next_analysis(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    left = tmp_path / f".awareness-{process.pid}-0123456789abcdef.tmp"
    left.write_bytes(b"torn")
    write_stored(small(), tmp_path)
    assert not left.exists()
