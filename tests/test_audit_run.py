"""`audit run` end to end on a tiny random model: cells, resume after a kill, pooling refused, and the result's schema."""

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from inspect_ai.log import list_eval_logs, read_eval_log
from pydantic import TypeAdapter

from audit.analysis.analyze import analyze, analyze_tables
from audit.analysis.result import AuditResult, read_result, schema
from audit.analysis.tables import check_identity, read_tables
from audit.config import CONFIG_FILE, AuditConfig, Condition, keep_config, make_audit, stored_config
from audit.running.run import run_audit
from audit.stats.rates import wilson
from audit.task_files import task_function, task_names
from graders.record import read_records
from nla.activations.contrast_sets import contrast_names
from nla.models import precision as devices
from nla.support.errors import ConfigError, DataError
from tests.commands import typed
from tests.prepared import Prepared


def config(model: Path, **changes: object) -> AuditConfig:
    fields = {
        "model": f"local/{model}",
        "model_args": {"dtype": "float32", "threads": 1},
        "tasks": ["mmlu", "wildchat"],
        "source": "bundled",
        "limit": 3,
        "tokens": 4,
        "max_tokens": 8,
        "verbalizer": "logit_lens",
        "steer": [0.5],
        "random_directions": 1,
        "unrelated_contrasts": 0,
    }
    return make_audit(fields | changes, "test")


@pytest.fixture(scope="module")
def done(tiny_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("audit")
    run_audit(config(tiny_folder("llama")), out)
    analyze(out)
    return out


def test_every_cell_is_there_and_steered_ones_differ(done: Path) -> None:
    table = pd.read_parquet(done / "transcripts.parquet")
    cells = table.groupby(["condition", "task"]).size()
    assert cells.to_dict() == {
        (c, t): 3 for c in ("base", "positive_control", "awareness+0.5", "random-1+0.5") for t in ("mmlu", "wildchat")
    }
    told = pd.read_parquet(done / "explanations.parquet").merge(table[["transcript", "condition", "task", "sample_id"]], on="transcript")
    by_condition = {name: one.explanation.tolist() for name, one in told.groupby("condition")}
    assert by_condition["base"] != by_condition["awareness+0.5"] != by_condition["random-1+0.5"]


def test_the_result_equals_the_tables_and_its_schema(done: Path) -> None:
    result = read_result(done / "audit.json")
    table = pd.read_parquet(done / "transcripts.parquet")
    for cell in result.cells:
        own = table[(table.task == cell.task) & (table.condition == cell.condition)]
        assert cell.internal.scored.n == own.internal.notna().sum()
        if cell.internal.scored.n:
            assert cell.internal.scored.low == pytest.approx(wilson(int(own.internal.sum()), int(own.internal.notna().sum())).low)
        if own.mean_logprob.notna().any():
            assert cell.mean_logprob.estimate == pytest.approx(own.mean_logprob.mean())
    assert set(result.excess) == {"mmlu"}
    assert result.identity["verbalizer"] == "logit_lens"
    assert schema()["properties"].keys() == json.loads((done / "audit.json").read_text()).keys()
    assert TypeAdapter(AuditResult).validate_python(result) == result


def test_every_transcript_has_a_column_per_probe_and_the_follow_up_answer(done: Path) -> None:
    table = pd.read_parquet(done / "transcripts.parquet")
    stored = {}
    for info in list_eval_logs(str(done / "logs")):
        log = read_eval_log(info)
        for sample in log.samples or []:
            stored[Path(log.location).name, str(sample.id)] = read_records(sample.scores)
    assert {f"probe:{name}" for name in contrast_names()} <= set(table.columns)
    for row in table.to_dict("records"):
        records = stored[row["log"], row["sample_id"]]
        assert records.probe is not None
        assert records.follow_up is not None
        for name in contrast_names():
            expected = records.probe.probes[name].response_max if records.probe.probes else np.nan
            assert row[f"probe:{name}"] == pytest.approx(expected, nan_ok=True)
        assert row["follow_up"] == pytest.approx(np.nan if records.follow_up.value is None else records.follow_up.value, nan_ok=True)
    assert table.probe_sets.nunique() == 1
    assert table["probe:testing"].notna().any()


@pytest.mark.parametrize("column", ["probe_sets", "follow_up_asked"])
def test_numbers_of_other_contrast_sets_or_questions_are_not_pooled(column: str) -> None:
    table = transcripts().assign(probe_sets="testing@1", follow_up_asked="log_odds@1")
    check_identity(table)
    table.loc[0, column] = None  # a transcript that could not be asked about
    check_identity(table)
    table.loc[1, column] = "testing@2"
    with pytest.raises(DataError, match=f"differ in {column}"):
        check_identity(table)


def test_running_again_does_nothing_and_a_new_condition_only_that(done: Path, tiny_folder: Callable[[str], Path]) -> None:
    before = sorted(info.name for info in list_eval_logs(str(done / "logs")))
    run_audit(config(tiny_folder("llama")), done)
    assert sorted(info.name for info in list_eval_logs(str(done / "logs"))) == before
    run_audit(config(tiny_folder("llama"), steer=[0.5, -0.5], random_directions=0), done)
    added = {info.name for info in list_eval_logs(str(done / "logs"))} - set(before)
    assert len(added) == 2
    assert all("awareness-0.5" in name for name in added)
    with pytest.raises(ConfigError, match="tokens 4 -> 5"):
        run_audit(config(tiny_folder("llama"), tokens=5), done)


def test_a_strength_that_is_no_number_is_refused_in_one_line(tmp_path: Path) -> None:
    command = ["audit", "run", "--model", "local/smollm2", "--tasks", "mmlu", "--steer", "0.1x"]
    done = typed(*command, "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert "steer" in done.stderr
    assert "number" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_an_audit_goes_on_in_the_dtype_it_began_with(
    tiny_folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"model_args": {"threads": 1}, "tasks": ["wildchat"], "limit": 2, "steer": []}
    for measured, positive in ((9.0, False), (0.1, True)):  # bf16 looked faster at first, and slower beside other work
        monkeypatch.setattr(devices, "bf16_speedup", lambda _kind, measured=measured: measured)
        run_audit(config(tiny_folder("llama"), **changes, positive_control=positive), tmp_path)
    analyze(tmp_path)
    assert set(pd.read_parquet(tmp_path / "transcripts.parquet").dtype) == {"bfloat16"}
    assert stored_config(tmp_path).model_args == {"threads": 1, "dtype": "bfloat16"}


@pytest.mark.slow
def test_a_killed_run_goes_on_and_repeats_no_sample(tiny_folder: Callable[[str], Path], tmp_path: Path, prepared: Prepared) -> None:
    toml = tmp_path / "audit.toml"
    toml.write_text(
        f'model = "local/{tiny_folder("llama")}"\nmodel_args = {{ dtype = "float32", threads = 1 }}\ntasks = ["mmlu", "wildchat"]\n'
        'source = "bundled"\nlimit = 12\ntokens = 2\nmax_tokens = 40\nverbalizer = "logit_lens"\nsteer = [0.5]\n'
        "random_directions = 0\nunrelated_contrasts = 0\npositive_control = false\n"
    )
    command = ("audit", "run", str(toml), "--out", str(tmp_path / "out"))
    running = prepared.start(*command)
    deadline = time.monotonic() + 400
    while len(list((tmp_path / "out" / "logs").glob("*/*.eval"))) < 3 and time.monotonic() < deadline:  # both tasks of the first condition
        time.sleep(0.05)
    running.send_signal(signal.SIGKILL)
    running.wait()
    finished = {s.uuid for info in list_eval_logs(str(tmp_path / "out" / "logs")) for s in read_eval_log(info).samples or []}
    assert finished
    done = prepared.run(*command)
    assert done.returncode == 0, done.stderr
    table = pd.read_parquet(tmp_path / "out" / "transcripts.parquet")
    assert not table.duplicated(["task", "condition", "sample_id", "epoch"]).any()
    assert len(table) == 2 * 2 * 12
    logs = [log for info in list_eval_logs(str(tmp_path / "out" / "logs")) if (log := read_eval_log(info)).status == "success"]
    assert len(logs) == 4
    assert finished <= {sample.uuid for log in logs for sample in log.samples or []}, "what was finished before the kill stands as it was"


def transcripts(n: int = 40, **columns: object) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        {
            "task": task,
            "role": role,
            "condition": "base",
            "direction": "",
            "strength": 0.0,
            "framing": "",
            "sample_id": f"{task}{i}",
            "epoch": 1,
        }
        | {"internal": float(rng.random() < rate), "verbalized": 0.0, "k": 50, "n_no": 49, "n_unclear": 0, "n_unscored": 0, "n_yes": 1}
        | {"own_score": 1.0, "mean_logprob": -1.0, "repeated_4": 0.0, "truncated": 0.0, "model": "m", "layer": 1, "verbalizer": "v"}
        | {"internal_projected": np.nan, "without_rewrite": 0, "nla": None, "grader": "g", "tokens_wanted": 50, "dtype": "float32"}
        for task, role, rate in (("exam", "benchmark", 0.9), ("quiz", "benchmark", 0.1), ("chat", "deployment control", 0.1))
        for i in range(n)
    ]
    return pd.DataFrame(rows).assign(**columns)


def test_a_benchmark_far_above_the_control_exceeds_and_one_like_it_does_not() -> None:
    result = analyze_tables(transcripts(), config(Path("m")))
    assert {task: excess.exceeds for task, excess in result.excess.items()} == {"exam": True, "quiz": False}
    assert result.floor is not None
    assert result.floor.pooled.n == 40


def test_without_a_control_nothing_exceeds_and_that_is_said() -> None:
    table = transcripts()
    result = analyze_tables(table[table.role == "benchmark"], config(Path("m")))
    assert result.floor is None
    assert not result.excess
    assert any("no measured floor" in note for note in result.notes)


def test_unscored_transcripts_are_counted_and_bounded() -> None:
    table = transcripts()
    table.loc[table.task == "quiz", "internal"] = np.nan
    result = analyze_tables(table, config(Path("m")))
    [quiz] = [cell for cell in result.cells if cell.task == "quiz"]
    assert (quiz.internal.scored.n, quiz.internal.scored.n_unscored) == (0, 40)
    assert (quiz.internal.all_no.estimate, quiz.internal.all_yes.estimate) == (0, 1)


def test_a_steered_cell_that_rambles_is_degenerate() -> None:
    table = transcripts()
    steered = table.assign(condition="awareness+0.1", direction="awareness", strength=0.1, mean_logprob=-3.0, repeated_4=0.5)
    result = analyze_tables(pd.concat([table, steered]), config(Path("m")))
    told = {cell.condition: cell.degenerate for cell in result.cells if cell.task == "exam"}
    assert told["base"] == ""
    assert "2.0 nats" in told["awareness+0.1"]
    assert "50% more repeated" in told["awareness+0.1"]
    [exam] = [one for one in result.steering if one.task == "exam"]
    assert exam.effects[0].pairs.n == 40
    assert exam.random_p == []


@pytest.mark.parametrize("column", ["model", "layer", "verbalizer", "grader", "tokens_wanted"])
def test_what_was_measured_in_different_ways_is_not_pooled(column: str) -> None:
    table = transcripts()
    table[column] = ["other" if column in ("model", "verbalizer", "grader") else 7, *table[column][1:]]
    with pytest.raises(DataError, match=f"differ in {column}"):
        check_identity(table)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"tasks": []}, "tasks"),
        ({"tasks": ["mmlu", "mmlu"]}, "same name"),
        ({"colour": "red"}, "colour"),
        ({"limit": 0}, "limit"),
        ({"steer": ["much"]}, "steer"),
        ({"steer": ["auto", -0.1]}, "stands alone"),
        ({"steer_bound": 0}, "steer_bound"),
        ({"unrelated_contrasts": 6}, "unrelated_contrasts"),
        ({"steer_unit": "metres"}, "steer_unit"),
    ],
)
def test_a_config_that_makes_no_sense_is_told(fields: dict[str, object], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        make_audit({"model": "local/x", "tasks": ["mmlu"]} | fields, "audit.toml")


def test_conditions_are_base_control_and_every_direction_at_every_strength() -> None:
    fields = {"model": "local/x", "tasks": ["mmlu"], "steer": [0, 0.1, -0.1], "random_directions": 2}
    made = make_audit(fields | {"unrelated_contrasts": 0}, "test").conditions()
    assert [one.name for one in made] == [
        "base", "positive_control", "awareness+0.1", "random-1+0.1", "random-2+0.1", "awareness-0.1", "random-1-0.1", "random-2-0.1",
    ]  # fmt: skip
    assert made[3] == Condition("random-1+0.1", steer="random-1:+0.1")
    assert (made[5].strength, made[5].direction) == (-0.1, "awareness")
    matched = {"-0.1": {"unrelated-1": -0.1, "unrelated-2": -0.07}}
    made = make_audit(fields | {"steer": [-0.1], "random_directions": 0, "unrelated_contrasts": 2, "matched": matched}, "test").conditions()
    assert [(one.name, one.measured) for one in made[2:]] == [
        ("awareness-0.1", True), ("unrelated-1-0.1", False), ("unrelated-2-0.1", False), ("unrelated-2-0.07", False),
    ]  # fmt: skip
    made = make_audit(fields | {"steer": ["auto"], "random_directions": 1}, "test").conditions()
    assert [one.name for one in made[2:5]] == ["awareness-auto", "random-1-auto", "unrelated-1-auto"]
    assert np.isnan(made[2].strength)


def test_tasks_are_found_by_name_and_path(tmp_path: Path) -> None:
    assert {"mmlu", "wildchat"} <= set(task_names())
    (tmp_path / "own.py").write_text("def own(**kwargs):\n    return kwargs\n")
    assert task_function(str(tmp_path / "own.py"))(a=1) == {"a": 1}
    with pytest.raises(ConfigError, match="no task 'nothing'"):
        task_function("nothing")


def test_a_folder_without_an_audit_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not the folder of an audit"):
        analyze(tmp_path)
    keep_config(config(Path("m")), tmp_path)
    assert stored_config(tmp_path).limit == 3
    with pytest.raises(DataError, match="no finished log"):
        read_tables(tmp_path, stored_config(tmp_path).conditions())
    whole = (tmp_path / CONFIG_FILE).read_text()
    (tmp_path / CONFIG_FILE).write_text(whole[:40])
    with pytest.raises(ConfigError, match=r"audit_config.json is damaged .* delete it"):
        stored_config(tmp_path)
    (tmp_path / "audit.json").write_text('{"schema_version": 99}')
    with pytest.raises(DataError, match="schema version 99"):
        read_result(tmp_path / "audit.json")
