"""Who scores the shards, from the command line: a killed worker, a SLURM array, Ray, and options that contradict each other."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from audit.running.ray_engine import Job, ShardWorker, gpus_each
from audit.running.rescore_config import make_rescore
from audit.running.shards import Shard, make_plan, shard_folder
from nla.support.files import PREFIX
from tests.commands import typed
from tests.prepared import Forked, Prepared
from tests.test_shards import assert_equal_to_one_process, write_logs

Folder = Callable[[str], Path]
ROOT = Path(__file__).parents[1]
FLAGS = ["--tokens", "3", "--verbalizer", "logit_lens", "--layer", "1"]


@pytest.fixture(scope="module")
def logs(tiny_folder: Folder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_logs(tmp_path_factory.mktemp("logs"), tiny_folder("llama"), {"first": 2, "second": 10})


@pytest.fixture(scope="module")
def at_once(logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process writes."""
    out = tmp_path_factory.mktemp("one") / "out"
    done = typed("audit", "score", str(logs), "-o", str(out), *FLAGS)
    assert done.returncode == 0, done.stderr
    return out


def shown(done: subprocess.CompletedProcess[str]) -> str:
    return " ".join((done.stdout + done.stderr).split())


def wait_for(found: Callable[[], object], process: Forked) -> None:
    for _ in range(6_000):
        if found() or process.poll() is not None:
            return
        time.sleep(0.01)
    raise TimeoutError


@pytest.mark.slow
def test_a_killed_worker_costs_the_part_in_work(logs: Path, at_once: Path, tmp_path: Path, prepared: Prepared) -> None:
    out = tmp_path / "out"
    words = ["score", str(logs), "-o", str(out), *FLAGS, "--shard"]
    worker = prepared.start("audit", *words, "1/1")
    wait_for(lambda: list(out.rglob("*.part")), worker)
    worker.send_signal(signal.SIGKILL)
    worker.communicate()
    assert [path.name for path in out.rglob("*.part")] == ["first.eval.part"]
    early = typed("audit", "merge", str(out))
    assert early.returncode == 2
    assert "lacks 10 transcripts of 1 of 2 logs" in early.stderr
    again = typed("audit", *words, "1/1")
    assert again.returncode == 0, again.stderr
    assert f"shard 1/1: 10 transcripts scored; 1 of 1 shards are done, now: audit merge {out}" in again.stdout
    merged = typed("audit", "merge", str(out))
    assert merged.stdout.split() == [str(out / "first.eval"), str(out / "second.eval")]
    assert_equal_to_one_process(out, at_once)
    assert not list(out.rglob(f"{PREFIX}*"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--shard", "1/2", "--engine", "ray"], "leave out --engine, --workers and --shards"),
        (["--workers", "2"], "found --workers or --shards without an engine; expected ray, ray:ADDRESS or slurm"),
        (["--engine", "spark", "--shards", "2"], "found 'spark'; expected ray, ray:ADDRESS or slurm"),
        (["--engine", "slurm"], "--engine slurm needs --shards N"),
        (["--engine", "ray"], "--engine ray needs --workers N"),
        (["--shard", "3/2"], "expected I/N with I from 1 to N, such as 3/24"),
        (["--shard", "1/2", "--measures", "nothing"], "There is no measure named 'nothing'"),
    ],
)
def test_options_that_cannot_be_meant_are_refused_and_leave_nothing(logs: Path, tmp_path: Path, options: list[str], said: str) -> None:
    done = typed("audit", "score", str(logs), "-o", str(tmp_path / "out"), *options)
    assert done.returncode == 2
    assert said in shown(done)
    assert not (tmp_path / "out").exists()


def test_ray_that_is_absent_is_told_with_the_way_to_get_it(logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None)
    done = typed("audit", "score", str(logs), "-o", str(tmp_path / "out"), "--engine", "ray", "--workers", "2")
    assert done.returncode == 2
    assert "no package ray is installed here; run `pip install 'awareness-audit[ray]'`" in shown(done)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_slurm_array_scores_every_shard(logs: Path, at_once: Path, tmp_path: Path) -> None:
    """The script is run as SLURM runs it, once for each task of the array."""
    out = tmp_path / "the auditor's SHARDS"
    command = ["audit", "score", str(logs), "-o", str(out), *FLAGS, "--no-unmarked-replies", "--engine", "slurm", "--shards", "3"]
    script = typed(*command).stdout
    assert "#SBATCH --array=1-3\n" in script
    assert not out.exists()
    for task in (2, 1, 3):
        done = typed(*_run_by_bash(script, tmp_path, SLURM_ARRAY_TASK_ID=str(task)))
        assert done.returncode == 0, done.stderr
        assert f"shard {task}/3: 4 transcripts scored" in done.stdout
    [merge] = [line for line in script.splitlines() if "--wrap=" in line]
    wrapped = subprocess.run(["bash", "-c", f"printf %s {merge.partition('--wrap=')[2]}"], capture_output=True, text=True, check=True)
    done = typed(*_run_by_bash(wrapped.stdout, tmp_path))
    assert done.returncode == 0, done.stderr
    assert_equal_to_one_process(out, at_once)


def _run_by_bash(script: str, folder: Path, **environment: str) -> list[str]:
    """The words of the `audit` command that a script runs."""
    stub = folder / "bin" / "audit"
    stub.parent.mkdir(exist_ok=True)
    stub.write_text("#!/bin/sh\nprintf '%s\\0' audit \"$@\"\n")
    stub.chmod(0o755)
    path = f"{stub.parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script], env={**os.environ, **environment, "PATH": path}, capture_output=True, text=True, check=True
    )
    return done.stdout.split("\0")[:-1]


@pytest.mark.parametrize(("gpus", "workers", "each"), [(0, 2, 0), (1, 2, 0.5), (2, 3, 0.5), (2, 2, 1), (8, 3, 2), (3, 7, 1 / 3)])
def test_gpus_are_shared_out_so_that_all_workers_fit(gpus: float, workers: int, each: float) -> None:
    assert gpus_each(gpus, workers) == each
    assert each == 0 or (gpus // each if each >= 1 else gpus * (1 // each)) >= workers


def worker(logs: Path, out: Path, folder: Path) -> ShardWorker:
    """A worker as Ray makes it; its work needs no Ray."""
    config = make_rescore({"tokens": 3, "verbalizer": "logit_lens", "layer": 1})
    plan, where = make_plan([str(logs)], out, config, 6, pytest.fail)
    return ShardWorker(Job(plan, where, out, config, folder, "run"))


def test_a_shard_that_kills_its_worker_is_given_up_after_three_tries(logs: Path, tmp_path: Path) -> None:
    scorer = worker(logs, tmp_path / "out", Path.cwd())
    for number, name, given_up in ((1, "run", True), (2, "earlier", False)):
        folder = shard_folder(tmp_path / "out", Shard(number, 6))
        folder.mkdir(parents=True)
        (folder / f".tries-{name}").write_bytes(b"...")  # what three killed workers leave
        row = scorer({"shard": number})
        assert row["done"] == (0 if given_up else 2)
        assert ("killed 3 times" in row["error"]) == given_up
        assert [path.name for path in folder.iterdir()] == ([".tries-run"] if given_up else ["second.eval.part"])


def test_a_workers_mistake_is_returned_as_one_sentence(logs: Path, tmp_path: Path) -> None:
    row = worker(logs, tmp_path / "out", tmp_path / "nowhere")({"shard": 1})
    assert (row["shard"], row["done"]) == (1, 0)
    assert "has no folder" in row["error"]
    assert "shared folder" in row["error"]


def test_ray_scores_every_shard_once_and_resumes(logs: Path, at_once: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the optional package ray is not installed")
    out = tmp_path / "out"
    words = ["score", str(logs), "-o", str(out), *FLAGS]
    assert typed("audit", *words, "--shard", "2/4").returncode == 0
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("*.part")}
    command = [sys.executable, "-m", "audit", *words, "--engine", "ray", "--workers", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "3 of 4 shards are to be scored by 2 workers." in done.stdout
    assert stamps.items() <= {path: path.stat().st_mtime_ns for path in out.rglob("*.part")}.items()
    assert_equal_to_one_process(out, at_once)
