"""`nla data` and `nla train` through the command line on a tiny random model: whole, killed and resumed, and in two processes."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from nla.support.errors import ConfigError
from nla.training.config import read_config
from nla.training.data.shards import VECTOR
from nla.training.pair import PairTraining
from tests.commands import typed
from tests.prepared import Prepared
from tests.varied_texts import varied_text

pytestmark = pytest.mark.slow

CONFIG = """
model = "{model}"
base_checkpoint = ""
av_template = "Say what [{{injection_char}}] holds"
ar_template = "{{explanation}} End."
marker = "@"
injection_scale = 5
heldout_vectors = 16
av_adapter = {{ rank = 4 }}
ar_adapter = {{ rank = 4 }}
[av]
steps = 12
batch = 4
checkpoint_every = 2
eval_every = 6
[samples]
n = 24
temperature = 1.0
max_tokens = 24
[ar]
steps = 12
batch = 4
checkpoint_every = 2
eval_every = 6
[rl]
group = 3
learn_from = 2
temperature = 0.7
ar_lr_share = 2
max_tokens = 24
[rl.train]
steps = 4
batch = 2
checkpoint_every = 1
eval_every = 2
[data]
layer = 1
passage_tokens = 60
positions_per_passage = 2
[[data.corpora]]
path = "texts.parquet"
windows = 1
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Callable[[str], Path]) -> Path:
    folder = tmp_path_factory.mktemp("project")
    pd.DataFrame({"doc_id": [str(i) for i in range(400)], "text": [varied_text(i) for i in range(400)]}).to_parquet(
        folder / "texts.parquet"
    )
    (folder / "pair.toml").write_text(CONFIG.format(model=tiny_folder("llama")))
    return folder


def command(project: Path, stage: str, work: str, *launcher: str) -> list[str]:
    start = [*launcher, "-m", "nla.cli"] if launcher else [sys.executable, "-m", "nla.cli"]
    return [*start, "train", stage, "pair.toml", "--corpora", ".", "--work", work, "--dtype", "float32", "--device", "cpu"]


def run(project: Path, *args: str, launcher: tuple[str, ...] = ()) -> None:
    words = command(project, *args, *launcher)
    if launcher:
        done = subprocess.run(words, cwd=project, capture_output=True, text=True, check=False)
    else:
        done = typed("nla", *words[3:], cwd=project)
    assert done.returncode == 0, done.stderr


def finished(project: Path, work: str) -> dict[str, torch.Tensor]:
    pair = project / work / "pair"
    return {
        f"{path.parent.name}/{path.name}/{name}": t for path in sorted(pair.rglob("*.safetensors")) for name, t in load_file(path).items()
    }


@pytest.fixture(scope="module")
def whole(project: Path) -> dict[str, torch.Tensor]:
    run(project, "all", "whole")
    return finished(project, "whole")


def test_all_stages_make_a_pair(whole: dict[str, torch.Tensor], project: Path) -> None:
    assert {name.split("/")[1] for name in whole} == {"adapter_model.safetensors", "value_head.safetensors"}
    assert all(bool(tensor.isfinite().all()) for tensor in whole.values())
    assert (project / "whole" / "pair" / "av" / "nla_meta.yaml").is_file()
    assert (project / "whole" / "pair" / "curves.png").read_bytes().startswith(b"\x89PNG")
    curves = pd.read_csv(project / "whole" / "pair" / "curves.csv")
    assert set(curves.stage) == {"av", "ar", "rl"}
    losses = pd.read_json(project / "whole" / "av" / "metrics.jsonl", lines=True).loss
    of_av = curves[(curves.stage == "av") & (curves["name"] == "loss")]
    assert of_av.step.tolist() == [10, 12]
    assert of_av.value.tolist() == pytest.approx([losses[:10].mean(), losses[10:].mean()], abs=1e-4)


def test_a_run_killed_in_every_stage_ends_in_the_same_pair(whole: dict[str, torch.Tensor], project: Path, prepared: Prepared) -> None:
    for stage in ("av", "ar", "rl"):
        running = prepared.start("nla", *command(project, "all", "killed")[3:], cwd=project)
        deadline = time.monotonic() + 90
        while not list((project / "killed" / stage).glob("checkpoint-*")) and running.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        running.send_signal(signal.SIGKILL)
        running.wait()
    run(project, "all", "killed")
    again = finished(project, "killed")
    assert again.keys() == whole.keys()
    for name, tensor in whole.items():
        torch.testing.assert_close(again[name], tensor, rtol=0, atol=0)


def test_sigterm_writes_a_checkpoint_first(whole: dict[str, torch.Tensor], project: Path, prepared: Prepared) -> None:
    assert whole
    shutil.copytree(project / "whole" / "data", project / "stopped" / "data")
    long = (
        (project / "pair.toml").read_text().replace("steps = 12", "steps = 5000").replace("checkpoint_every = 2", "checkpoint_every = 5000")
    )
    (project / "long.toml").write_text(long)
    words = [part.replace("pair.toml", "long.toml") for part in command(project, "av", "stopped")[3:]]
    running = prepared.start("nla", *words, cwd=project)
    metrics = project / "stopped" / "av" / "metrics.jsonl"
    deadline = time.monotonic() + 90
    while (not metrics.exists() or metrics.read_text().count("\n") < 3) and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    _, told = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "The same command resumes from there" in told
    assert len(list((project / "stopped" / "av").glob("checkpoint-*"))) == 1


def test_two_processes_train_the_ar_to_the_same_weights_as_one(whole: dict[str, torch.Tensor], project: Path) -> None:
    for part in ("data", "samples", "pair/av"):
        shutil.copytree(project / "whole" / part, project / "two" / part)
    launcher = ("torchrun", "--nproc_per_node=2", "--standalone")
    run(project, "ar", "two", launcher=launcher)
    expected = pd.read_json(project / "whole" / "ar" / "metrics.jsonl", lines=True)
    found = pd.read_json(project / "two" / "ar" / "metrics.jsonl", lines=True)
    assert found.heldout_fve_gold.dropna().tolist() == pytest.approx(expected.heldout_fve_gold.dropna().tolist(), abs=1e-5)


def test_two_processes_may_copy_the_start_of_reinforcement_learning_at_once(
    whole: dict[str, torch.Tensor], project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert whole
    copied = shutil.copytree
    copied(project / "whole" / "pair", tmp_path / "pair")

    def as_the_other_process_does(source: Path, target: Path) -> None:
        copied(source, target)
        copied(source, tmp_path / "rl" / "start")

    monkeypatch.setattr("nla.training.pair.shutil", SimpleNamespace(copytree=as_the_other_process_does))
    training = PairTraining(read_config(project / "pair.toml"), tmp_path, dtype="float32", device="cpu")
    start = training._rl_start()
    assert (start / "av" / "adapter_model.safetensors").is_file()
    assert [path.name for path in start.parent.iterdir()] == ["start"]


def test_the_median_scale_is_that_of_the_training_vectors(whole: dict[str, torch.Tensor], project: Path) -> None:
    assert whole
    text = (project / "pair.toml").read_text()
    (project / "median.toml").write_text(text.replace("injection_scale = 5", 'injection_scale = "median"'))
    training = PairTraining(read_config(project / "median.toml"), project / "whole", dtype="float32", device="cpu")
    vectors = np.stack([row for path in sorted((project / "whole" / "data").glob("*.parquet")) for row in pd.read_parquet(path)[VECTOR]])
    lower_middle = np.sort(np.linalg.norm(vectors, axis=1))[(len(vectors) - 1) // 2]
    assert training.av_sidecar.injection_scale == pytest.approx(lower_middle, rel=5e-4)
    (project / "wrong.toml").write_text(text.replace("injection_scale = 5", 'injection_scale = "mean"'))
    with pytest.raises(ConfigError, match=r"injection_scale: it is 'mean'; expected a number above 0, or .median.$"):
        read_config(project / "wrong.toml")
