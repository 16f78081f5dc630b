"""Training that is disturbed: a second command in the same folder, a full or read-only disk, torn files, data that have changed."""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from nla.support.errors import ConfigError, DataError
from nla.support.locks import LOCK_FILE, exclusive_lock
from nla.support.wilson import wilson_interval
from nla.training.checkpoints import METRICS, read_metrics
from nla.training.curves import CurvePoint, collect
from nla.training.loop import Group, Limits, TrainConfig, fit
from nla.training.samples import draw_samples, read_samples
from nla.verbalizers.base import Explanation

CONFIG = TrainConfig(steps=6, batch=2, checkpoint_every=2, eval_every=6, warmup=0)


class Line:
    """A stage that fits one number; `act` runs at a step, before the loss."""

    name = "line"
    n_examples = 8

    def __init__(self, act: tuple[int, object] | None = None, size: int = 1) -> None:
        self.weight, self.act = nn.Parameter(torch.zeros(size)), act

    def groups(self) -> list[Group]:
        return [Group([self.weight])]

    def loss(self, rows: list[int], step: int) -> tuple[Tensor, dict[str, float]]:
        if self.act is not None and self.act[0] == step:
            self.act[1]()  # type: ignore[operator]
        return (self.weight.sum() - sum(rows)) ** 2, {}

    def evaluate(self) -> dict[str, float]:
        return {}


def quiet(_: str) -> None:
    """No progress."""


def test_time_ends_a_stage_whole_and_the_schedule_with_it(tmp_path: Path) -> None:
    def rest() -> None:
        time.sleep(0.4)

    config = CONFIG.model_copy(update={"steps": 1000, "checkpoint_every": 2})
    rows = fit(Line((3, rest)), config, tmp_path, quiet, Limits(seconds=0.35))
    assert rows[-1]["step"] == 4
    assert (tmp_path / "checkpoint-000004").is_dir()
    assert rows[-1]["lr"] < rows[0]["lr"]
    assert fit(Line(), config, tmp_path, quiet, Limits(seconds=0.35)) == rows  # the time is spent, and counted over runs
    assert len(fit(Line(), CONFIG.model_copy(update={"steps": 1000}), tmp_path, quiet, Limits(seconds=60))) == 1000


def test_time_too_short_for_a_checkpoint_is_said(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"checkpoint_every": 5})
    with pytest.raises(ConfigError, match=r"enough for 1 steps, but a checkpoint needs 5\. Give more --minutes"):
        fit(Line((0, lambda: time.sleep(0.2))), config, tmp_path, quiet, Limits(seconds=0.1))


class Hungry(Line):
    """A stage that fits into memory only in parts of at most `fits` rows."""

    def __init__(self, fits: int) -> None:
        super().__init__()
        self.part, self.fits = 16, fits

    def loss(self, rows: list[int], step: int) -> tuple[Tensor, dict[str, float]]:
        if self.part > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        return super().loss(rows, step)


def test_too_little_memory_halves_the_parts_once(tmp_path: Path) -> None:
    said: list[str] = []
    assert len(fit(Hungry(8), CONFIG, tmp_path / "a", said.append)) == 6
    assert [line for line in said if "halved to 8 rows" in line] == said[:1]
    with pytest.raises(ConfigError, match=r"line, step 1: the device's memory does not suffice \(CUDA out of memory"):
        fit(Hungry(4), CONFIG, tmp_path / "b", quiet)


def test_metrics_go_to_a_tracker_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'mlflow' is not known; expected one of tensorboard, wandb, trackio"):
        fit(Line(), CONFIG, tmp_path, quiet, Limits(log_with="mlflow"))
    pytest.importorskip("tensorboard")
    fit(Line(), CONFIG, tmp_path, quiet, Limits(log_with="tensorboard"))
    assert list(tmp_path.rglob("events.out.tfevents*"))


def test_a_second_command_in_the_same_folder_is_refused_and_named(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from nla.training.work import work_lock\n"
        "with work_lock(Path(sys.argv[1]), 'nla train'): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match=rf"in use by `nla train` \(process {other.pid}"):
            fit(Line(), CONFIG, tmp_path, quiet)
        other.kill()
    assert len(fit(Line(), CONFIG, tmp_path, quiet)) == 6
    assert not (tmp_path / LOCK_FILE).exists()


def test_other_processes_of_the_same_launch_take_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nla.training.work import work_lock

    monkeypatch.setenv("RANK", "1")
    with exclusive_lock(tmp_path, "main process"), work_lock(tmp_path, "nla train"):
        assert (tmp_path / LOCK_FILE).exists()


def test_a_full_disk_under_the_metrics_keeps_the_checkpoint(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    (tmp_path / "filler").write_text("")

    def fill() -> None:
        size = (tmp_path / METRICS).stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    try:
        with pytest.raises(DataError, match=r"the metrics of step 4 cannot be written .*checkpoint-000002 is whole; make room") as caught:
            fit(Line((3, fill)), CONFIG, tmp_path, quiet)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(str(caught.value).splitlines()) == 1
    assert [figures["step"] for figures in fit(Line(), CONFIG, tmp_path, quiet)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(DataError, match="cannot be"):
        fit(Line(), CONFIG, tmp_path / "stage", quiet)


def test_a_path_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        fit(Line(), CONFIG, tmp_path / "file" / "stage", quiet)


def test_nothing_temporary_is_left_and_left_overs_go(tmp_path: Path) -> None:
    (tmp_path / f".awareness-{2**22 + 1}-0123.tmp").mkdir()  # of a process that cannot run
    fit(Line(), CONFIG, tmp_path, quiet)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-000006", METRICS]


def test_a_checkpoint_of_other_data_shapes_or_bytes_is_refused(tmp_path: Path) -> None:
    fit(Line(), CONFIG, tmp_path, quiet)
    changed = Line()
    changed.n_examples = 9
    with pytest.raises(ConfigError, match="8 training examples, but there are 9"):
        fit(changed, CONFIG, tmp_path, quiet)
    with pytest.raises(ConfigError, match="other shapes"):
        fit(Line(size=2), CONFIG, tmp_path, quiet)
    state = tmp_path / "checkpoint-000006" / "state.json"
    whole = state.read_text()
    for torn in ("", whole[:20], "[]", "{}"):
        state.write_text(torn)
        with pytest.raises(DataError, match=r"cannot be read: .* Delete it"):
            fit(Line(), CONFIG, tmp_path, quiet)
    state.write_text(whole)
    (state.parent / "tensors.safetensors").write_bytes(b"no tensors")
    with pytest.raises(DataError, match="Delete it"):
        fit(Line(), CONFIG, tmp_path, quiet)


def test_checkpoints_of_before_the_example_count_still_resume(tmp_path: Path) -> None:
    fit(Line(), CONFIG, tmp_path, quiet)
    state = tmp_path / "checkpoint-000006" / "state.json"
    described = json.loads(state.read_text())
    del described["n_examples"]
    state.write_text(json.dumps(described))
    resumed = Line()
    fit(resumed, CONFIG, tmp_path, quiet)
    assert torch.equal(resumed.weight, load_file(state.parent / "tensors.safetensors")["parameter.0"])


def test_a_torn_line_of_metrics_is_left_out(tmp_path: Path) -> None:
    (tmp_path / METRICS).write_text('{"step": 1, "loss": 2}\n{"step": 2, "lo')
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 2}]


class Counting:
    """A verbalizer whose explanation is the row it is asked for; odd ones fail."""

    name, layer, pair = "counting", 1, None

    def verbalize(self, _vectors: Tensor, keys: list[tuple[object, ...]]) -> list[Explanation]:
        return [Explanation(f"row {key[1]}", "odd" if int(str(key[1])) % 2 else "") for key in keys]


def test_samples_of_other_rows_are_refused(tmp_path: Path) -> None:
    vectors, rows = torch.zeros(2_000, 4), list(range(1_000))
    draw_samples(Counting(), vectors, rows[:600], tmp_path, "train")
    assert read_samples(rows[:600], tmp_path, "train") == {row: f"row {row}" for row in range(0, 600, 2)}
    assert read_samples(rows[:600], tmp_path, "heldout") == {}  # none are drawn
    with pytest.raises(DataError, match="the data have changed"):
        read_samples(rows[1:601], tmp_path, "train")
    pq.write_table(pa.table({"row": [0]}), tmp_path / "train-000000.parquet")
    with pytest.raises(DataError, match="cannot be read"):
        read_samples(rows[:600], tmp_path, "train")


def test_curves_are_means_of_ten_steps_and_held_out_figures(tmp_path: Path) -> None:
    (tmp_path / "av").mkdir()
    rows = [{"step": step, "loss": float(step)} | ({"heldout_nats": 2.0} if step == 12 else {}) for step in range(1, 13)]
    (tmp_path / "av" / METRICS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    expected = [CurvePoint("av", 10, "loss", 5.5), CurvePoint("av", 12, "loss", 11.5), CurvePoint("av", 12, "heldout_nats", 2.0)]
    assert list(collect(tmp_path)) == expected


@pytest.mark.parametrize(("hits", "n"), [(0, 5), (3, 7), (400, 400)])
def test_wilsons_interval_is_that_of_statsmodels(hits: int, n: int) -> None:
    from statsmodels.stats.proportion import proportion_confint

    assert wilson_interval(hits, n) == pytest.approx(proportion_confint(hits, n, method="wilson"), abs=1e-12)


class Ending(Line):
    """A stage that ends once it has seen three steps, and remembers how many it was shown before each."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[int] = []

    def follow(self, history: list[dict[str, float]]) -> str:
        self.shown.append(len(history))
        return "three are enough" if len(history) >= 3 else ""


def test_a_stage_may_end_early_and_a_second_run_leaves_it_so(tmp_path: Path) -> None:
    said: list[str] = []
    stage = Ending()
    config = CONFIG.model_copy(update={"eval_every": 3, "checkpoint_every": 100})
    rows = fit(stage, config, tmp_path, said.append)
    assert (len(rows), stage.shown, (tmp_path / "checkpoint-000003").is_dir()) == (3, [0, 1, 2, 3], True)
    assert said[-1] == "line: ended at step 3 of 6, because three are enough."
    again = Ending()
    assert fit(again, config, tmp_path, quiet) == rows
    assert again.shown == [3]
