"""`audit score --shard` and `audit merge`: the shards together are what one process writes, and a kill costs the part in work alone."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.log import EvalLog, read_eval_log, write_eval_log
from inspect_ai.scorer import includes
from inspect_ai.solver import generate

from audit.logs import log_headers
from audit.running.merge import merge_shards
from audit.running.rescore import score_logs
from audit.running.rescore_config import RescoreConfig, make_rescore
from audit.running.shard_worker import score_shard
from audit.running.shards import PLAN_FILE, PlannedLog, ShardPlan, make_plan, parse_shard, read_plan, shard_folder
from nla.support.errors import ConfigError, DataError
from nla.support.locks import exclusive_lock

Folder = Callable[[str], Path]
INSTRUMENT = {"tokens": 3, "verbalizer": "logit_lens", "layer": 1}


def write_logs(folder: Path, model: Path, sizes: dict[str, int], epochs: int = 1) -> Path:
    """Logs of the tiny model, one per entry, with as many samples."""
    for name, size in sizes.items():
        samples = [Sample(id=i, input=f"{name} asks: what is {i} plus {i}?", target="4") for i in range(1, size + 1)]
        task = Task(dataset=samples, solver=generate(), scorer=includes(), name=name)
        args = {"model_args": {"dtype": "float32"}, "display": "none", "log_dir": str(folder), "max_tokens": 12, "epochs": epochs}
        [log] = eval(task, model=f"local/{model}", **args)
        assert log.status == "success", log.error
        Path(log.location).rename(folder / f"{name}.eval")
    return folder


@pytest.fixture(scope="module")
def logs(tiny_folder: Folder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_logs(tmp_path_factory.mktemp("logs"), tiny_folder("llama"), {"first": 4, "second": 3}, epochs=2)


@pytest.fixture(scope="module")
def at_once(logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process writes."""
    out = tmp_path_factory.mktemp("one") / "out"
    score_logs([str(logs)], out, config())
    return out


def config(**changes: Any) -> RescoreConfig:
    return make_rescore(INSTRUMENT | changes)


def shard(logs: Path, out: Path, number: int, of: int, settings: RescoreConfig | None = None) -> int:
    """Score one shard as a worker does; return the number of transcripts scored."""
    settings = settings or config()
    plan, where = make_plan([str(logs)], out, settings, of, pytest.fail)
    return score_shard(plan, where, out, settings, number, warn=pytest.fail)


def untimed(value: Any) -> Any:
    """The value without `seconds`, the time that reading took, which no two runs share."""
    if isinstance(value, dict):
        return {name: untimed(part) for name, part in value.items() if name != "seconds"}
    return [untimed(part) for part in value] if isinstance(value, list) else value


def scores(log: EvalLog) -> list[str]:
    """Id, epoch and scores of every sample as JSON text, in the order of the log."""
    samples = log.samples or []
    found = [(s.id, s.epoch, s.uuid, {name: score.model_dump(mode="json") for name, score in (s.scores or {}).items()}) for s in samples]
    return [json.dumps(untimed(list(sample))) for sample in found]


def assert_equal_to_one_process(out: Path, at_once: Path) -> None:
    names = sorted(path.name for path in at_once.glob("*.eval"))
    assert sorted(path.name for path in out.glob("*.eval")) == names
    for name in names:
        merged, one = (read_eval_log(str(folder / name)) for folder in (out, at_once))
        assert scores(merged) == scores(one)
        for part in ("eval", "plan", "results", "stats", "reductions", "status"):
            theirs, ours = (getattr(log, part) for log in (one, merged))
            assert json.dumps(untimed(dumped(ours))) == json.dumps(untimed(dumped(theirs))), part
        for ours, theirs in zip(merged.samples or [], one.samples or [], strict=True):
            assert [event.event for event in ours.events] == [event.event for event in theirs.events]
            assert ours.messages == theirs.messages


def dumped(value: Any) -> Any:
    if isinstance(value, list):
        return [dumped(part) for part in value]
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else value


def planned(transcripts: list[int], shards: int) -> ShardPlan:
    logs = tuple(PlannedLog(name=f"{i}.eval", log_id=str(i), n_bytes=1, transcripts=n) for i, n in enumerate(transcripts))
    return ShardPlan(shards=shards, settings={}, dtype="float32", logs=logs)


@pytest.mark.parametrize("shards", [1, 2, 5, 7, 24, 40])
def test_every_transcript_is_in_one_shard_and_shards_are_of_one_size(shards: int) -> None:
    transcripts = [7, 0, 1, 16]
    plan = planned(transcripts, shards)
    parts = [part for number in range(1, shards + 1) for part in plan.parts(number)]
    held = [(int(part.log.log_id), i) for part in parts for i in range(part.start, part.stop)]
    assert held == [(log, i) for log, n in enumerate(transcripts) for i in range(n)]
    sizes = [sum(part.stop - part.start for part in plan.parts(number)) for number in range(1, shards + 1)]
    assert max(sizes) - min(sizes) <= 1
    assert len({part.path(Path("out")) for part in parts}) == len(parts)


def test_merged_shards_are_what_one_process_writes(logs: Path, at_once: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = [shard(logs, out, number, 5) for number in (4, 1, 5, 2, 3)]  # in any order
    assert sum(done) == 14
    assert log_headers([out], pytest.fail) == []  # parts are no logs: no command counts them as such
    assert merge_shards(out, warn=pytest.fail) == [out / "first.eval", out / "second.eval"]
    assert_equal_to_one_process(out, at_once)


@pytest.mark.slow
def test_what_is_done_is_not_done_again(logs: Path, at_once: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for number in (1, 2):
        shard(logs, out, number, 2)
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("*.part")}
    assert len(stamps) == 3  # one of the shards has transcripts of both logs
    assert [shard(logs, out, number, 2) for number in (1, 2)] == [0, 0]
    [merged, _] = merge_shards(out)
    stamp = merged.stat().st_mtime_ns
    merge_shards(out)
    assert merged.stat().st_mtime_ns == stamp
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.part")} == stamps
    assert_equal_to_one_process(out, at_once)


def test_a_missing_shard_is_named_and_complete_logs_are_written(logs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for number in (1, 2, 3, 4):
        shard(logs, out, number, 7)
    with pytest.raises(DataError, match=r"lacks 6 transcripts of 1 of 2 logs, which belong to the shards 5, 6, 7 of 7\. .*--shard 5/7"):
        merge_shards(out)
    assert [path.name for path in out.glob("*.eval")] == ["first.eval"]
    with pytest.raises(ConfigError, match=r"expected a folder that `audit score LOGS -o OUT --shard I/N` made"):
        merge_shards(tmp_path / "nothing")


def test_other_settings_numbers_and_logs_are_refused(logs: Path, tiny_folder: Folder, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shard(logs, out, 1, 7)
    before = sorted(out.rglob("*"))
    with pytest.raises(ConfigError, match=r"holds shards with other settings \(tokens 3 -> 5\); give another folder"):
        shard(logs, out, 2, 7, config(tokens=5))
    with pytest.raises(ConfigError, match=r"is divided into 7 shards, not 6; give --shard I/7, or another folder"):
        shard(logs, out, 2, 6)
    with pytest.raises(ConfigError, match=r"was divided for other logs \(missing: second\.eval\); give the logs that it was divided for"):
        shard(logs / "first.eval", out, 2, 7)
    more = write_logs(tmp_path / "more", tiny_folder("llama"), {"third": 1})
    with pytest.raises(ConfigError, match=r"\(new: third\.eval\)"):
        make_plan([str(logs), str(more)], out, config(), 7, pytest.fail)
    assert sorted(out.rglob("*")) == before


def test_a_log_that_was_changed_since_is_refused(tiny_folder: Folder, tmp_path: Path) -> None:
    logs = write_logs(tmp_path / "logs", tiny_folder("llama"), {"first": 2})
    shard(logs, tmp_path / "out", 1, 2)
    log = read_eval_log(str(logs / "first.eval"))
    assert log.samples is not None
    log.samples[1].output.completion = "something else that is longer than it was"
    write_eval_log(log, str(logs / "first.eval"))
    with pytest.raises(ConfigError, match=r"\(changed since: first\.eval\)"):
        shard(logs, tmp_path / "out", 2, 2)


def test_one_shard_has_one_worker(logs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with exclusive_lock(shard_folder(out, parse_shard("2/7")), "audit score --shard 2/7", folder=True):
        assert shard(logs, out, 1, 7) == 2  # another worker is not in the way
        told = _in_a_thread(lambda: shard(logs, out, 2, 7))
    assert isinstance(told, ConfigError)
    assert "2-of-7 is in use by `audit score --shard 2/7` (process" in str(told)


def _in_a_thread(work: Callable[[], object]) -> BaseException | None:
    """Do work where this thread's locks do not count as its own, and return what it raised."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).exception()


def test_copies_made_without_shards_are_not_mixed_with_them(logs: Path, at_once: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds scored copies that were made without --shard \(first\.eval, second\.eval\)"):
        shard(logs, at_once, 1, 2)
    assert not (at_once / PLAN_FILE).exists()


def test_a_log_that_cannot_be_scored_costs_only_itself(logs: Path, tiny_folder: Folder, tmp_path: Path) -> None:
    folder = write_logs(tmp_path / "logs", tiny_folder("llama"), {"good": 2})
    unfinished = read_eval_log(str(folder / "good.eval"))
    unfinished.status, unfinished.eval.eval_id = "error", "another"
    write_eval_log(unfinished, str(folder / "bad.eval"))
    warnings: list[str] = []
    plan, where = make_plan([str(folder)], tmp_path / "out", config(), 2, warnings.append)
    for number in (1, 2):
        assert score_shard(plan, where, tmp_path / "out", config(), number) == 1
    assert merge_shards(tmp_path / "out", warn=warnings.append) == [tmp_path / "out" / "good.eval"]
    assert ["bad.eval: no finished log (status error)" in warning for warning in warnings] == [True, True]
    with pytest.raises(DataError, match="no finished log"):
        make_plan([str(folder / "bad.eval")], tmp_path / "other", config(), 2, pytest.fail)


def test_a_damaged_part_is_made_again_and_a_damaged_plan_is_told(logs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shard(logs, out, 1, 7)
    [part] = out.rglob("*.part")
    whole = read_plan(out)
    part.write_bytes(part.read_bytes()[:200])
    warnings: list[str] = []
    _, where = make_plan([str(logs)], out, config(), 7, pytest.fail)
    assert score_shard(whole, where, out, config(), 1, warn=warnings.append) == 2
    assert ["cannot be read" in warning and "made again" in warning for warning in warnings] == [True]
    (out / PLAN_FILE).write_text((out / PLAN_FILE).read_text()[:50])
    with pytest.raises(ConfigError, match=r"is damaged .*delete it, and give the `audit score` command again"):
        shard(logs, out, 2, 7)
    (out / PLAN_FILE).unlink()
    assert shard(logs, out, 1, 7) == 0
    assert read_plan(out) == whole


def test_limit_takes_the_first_transcripts_of_every_log(logs: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        shard(logs, tmp_path / "out", number, 2, config(limit=3))
    score_logs([str(logs)], tmp_path / "one", config(limit=3))
    merge_shards(tmp_path / "out")
    assert_equal_to_one_process(tmp_path / "out", tmp_path / "one")


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "a/b", "1/0", "-1/4", "1/4/2", "1/1000000", "٣/٤"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected I/N with I from 1 to N"):
        parse_shard(text)


def test_the_dtype_of_the_first_worker_is_that_of_all(tiny_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that does not say its dtype is read by every worker in the one that the plan names, whatever its machine would measure."""
    logs = write_logs(tmp_path / "logs", tiny_folder("llama"), {"first": 2})
    log = read_eval_log(str(logs / "first.eval"))
    log.eval.model_args.pop("dtype")
    for sample in log.samples or []:
        sample.output.metadata = None
    write_eval_log(log, str(logs / "first.eval"))
    used = []
    for number, speedup in ((1, 9.0), (2, 0.1)):
        monkeypatch.setattr("nla.models.precision.bf16_speedup", lambda *_, speedup=speedup: speedup)
        shard(logs, tmp_path / "out", number, 2, config(model=str(tiny_folder("llama"))))
    merge_shards(tmp_path / "out")
    for sample in read_eval_log(str(tmp_path / "out" / "first.eval")).samples or []:
        used.append((sample.scores or {})["nla_awareness"].metadata["model"]["dtype"])  # type: ignore[index]
    assert used == ["bfloat16", "bfloat16"]
