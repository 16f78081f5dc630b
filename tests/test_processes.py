"""Training in two processes: what it ends with is what one process ends with."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from nla.models.loaded import LoadedModel
from nla.support.errors import ConfigError
from nla.training.loop import TrainConfig, fit
from tests.test_training import av_stage

LAUNCHER = ["torch.distributed.run", "--nproc_per_node=2", "--standalone", "-m"]


@pytest.mark.slow
def test_two_processes_end_with_the_parameters_of_one(tiny_folder: Callable[[str], Path], tiny_av: Path, tmp_path: Path) -> None:
    for name, launcher in (("one", []), ("two", LAUNCHER)):
        (tmp_path / name).mkdir()
        words = ["-m", *launcher, "tests.train_in_processes", str(tiny_folder("llama")), str(tiny_av), str(tmp_path / name)]
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
    for stage in ("av", "ar", "rl"):
        files = [tmp_path / f"{run}/{stage}-{rank}.pt" for run, rank in (("one", 0), ("two", 0), ("two", 1))]
        (processes, expected), (of_two, first), (_, second) = (torch.load(file) for file in files)
        assert (processes, of_two) == (1, 2)
        for one, of_first, of_second in zip(expected, first, second, strict=True):
            torch.testing.assert_close(of_first, one, rtol=0, atol=1e-5, msg=stage)
            torch.testing.assert_close(of_second, of_first, rtol=0, atol=0)
    # A time budget: the second process's clock runs twice as fast, but the first one's decides the learning rate and the end of both.
    for of_first, of_second in zip(*(torch.load(tmp_path / f"two/timed-{rank}.pt") for rank in (0, 1)), strict=True):
        torch.testing.assert_close(of_second, of_first, rtol=0, atol=0)


def test_a_batch_smaller_than_the_processes_is_refused(
    tiny: LoadedModel, tiny_av: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Accelerator, "num_processes", 3)
    with pytest.raises(ConfigError, match="a batch of 2 cannot be shared by 3 processes"):
        fit(av_stage(tiny, tiny_av), TrainConfig(steps=1, batch=2), tmp_path, lambda _: None)
