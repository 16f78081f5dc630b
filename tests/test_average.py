"""`nla average`: the pair between two pairs of adapters."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import nla.cli
from nla.models.adapter_config import CONFIG_FILE
from nla.models.adapters import WEIGHTS_FILE
from nla.pair.average import average_pairs
from nla.pair.contract import Marker, Sidecar, read_sidecar, write_sidecar
from nla.pair.reconstructor import HEAD_FILE
from nla.support.errors import ContractError, DataError

NAME = "base_model.model.layers.0.q_proj.lora_A.weight"


def write_pair(folder: Path, value: float, *, stage: str = "rl", rank: int = 2, scale: float = 4.0) -> Path:
    """Write a pair of which every weight is one value."""
    marker = Marker("@", 64, 91, 93)
    common = {"base_checkpoint": "none/none", "mse_scale": None, "stage": stage}
    for sidecar in (
        Sidecar("av", 8, 1, template="Say [{injection_char}]", marker=marker, injection_scale=scale, **common),
        Sidecar("ar", 8, 1, template="{explanation} End.", marker=None, injection_scale=None, **common),
    ):
        place = folder / sidecar.role
        place.mkdir(parents=True)
        write_sidecar(place, sidecar)
        (place / CONFIG_FILE).write_text(json.dumps({"peft_type": "LORA", "r": rank}))
        save_file({NAME: torch.full((rank, 8), value, dtype=torch.bfloat16)}, place / WEIGHTS_FILE)
    save_file({"weight": torch.full((8, 8), value)}, folder / "ar" / HEAD_FILE)
    return folder


def test_every_weight_lies_between_those_of_the_two_pairs(tmp_path: Path) -> None:
    first, second = write_pair(tmp_path / "first", 1.0), write_pair(tmp_path / "second", 3.0, stage="sft")
    done = CliRunner().invoke(nla.cli.app, ["average", str(first), str(second), str(tmp_path / "out"), "--share", "0.25"])
    assert done.exit_code == 0, done.output
    for place, name in (("av", NAME), ("ar", NAME)):
        tensor = load_file(tmp_path / "out" / place / WEIGHTS_FILE)[name]
        assert tensor.dtype == torch.bfloat16
        assert tensor.unique().tolist() == [1.5]
    assert load_file(tmp_path / "out" / "ar" / HEAD_FILE)["weight"].unique().tolist() == [1.5]
    for role in ("av", "ar"):
        assert read_sidecar(tmp_path / "out" / role) == read_sidecar(first / role)
        assert (tmp_path / "out" / role / CONFIG_FILE).read_text() == (first / role / CONFIG_FILE).read_text()


Change = Callable[[Path], object]


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (lambda folder: write_pair(folder, 3.0, scale=5.0), "different contracts"),
        (lambda folder: write_pair(folder, 3.0, rank=3), "differ in r;"),
        (
            lambda folder: save_file({"other": torch.zeros(2, 8)}, write_pair(folder, 3.0) / "ar" / WEIGHTS_FILE),
            "are not those of the first",
        ),
        (lambda folder: (write_pair(folder, 3.0) / "ar" / HEAD_FILE).write_bytes(b"no"), "cannot be read"),
    ],
)
def test_pairs_that_do_not_belong_together_are_refused(second: Change, words: str, tmp_path: Path) -> None:
    first = write_pair(tmp_path / "first", 1.0)
    second(tmp_path / "second")
    with pytest.raises(ContractError, match=words):
        average_pairs(str(first), str(tmp_path / "second"), 0.5, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_full_folder_is_kept(tmp_path: Path) -> None:
    first = write_pair(tmp_path / "first", 1.0)
    with pytest.raises(DataError, match="not empty"):
        average_pairs(str(first), str(first), 0.5, first)
