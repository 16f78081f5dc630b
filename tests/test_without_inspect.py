"""On a machine that has only what training needs, without Inspect, a pair is trained, scored and used."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
NEEDLESS = {"inspect_ai", "anthropic", "datasets", "pandas", "matplotlib", "statsmodels", "scipy", "sklearn", "platformdirs", "sniffio"}


@pytest.fixture(scope="module")
def machine(tiny_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """Work folder, what came out, and what was said by `tests.without_packages`."""
    folder = tmp_path_factory.mktemp("machine")
    command = [sys.executable, "-m", "tests.without_packages", str(tiny_folder("llama")), str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, json.loads(done.stdout.splitlines()[-1]), done.stderr


def test_none_of_the_other_packages_can_be_imported(machine: tuple[Path, dict[str, Any], str]) -> None:
    _, result, _ = machine
    assert set(result["absent"]) >= NEEDLESS
    assert result["loaded"] == []
    assert "torch" not in result["absent"]


def test_a_pair_is_trained_in_all_stages(machine: tuple[Path, dict[str, Any], str]) -> None:
    folder, _, _ = machine
    steps = {stage: len((folder / "work" / stage / "metrics.jsonl").read_text().splitlines()) for stage in ("av", "ar", "rl")}
    assert steps == {"av": 3, "ar": 3, "rl": 2}
    pair = folder / "work" / "pair"
    assert {path.name for path in pair.iterdir()} == {"av", "ar", "curves.csv"}  # no matplotlib, so no curves.png
    assert "stage,step,name,value" in (pair / "curves.csv").read_text()


def test_token_ids_are_read_explained_and_reconstructed(machine: tuple[Path, dict[str, Any], str]) -> None:
    _, result, _ = machine
    assert result["vectors"] == [25, 32]
    assert result["finite"]
    assert result["explanations"] == 3
    assert result["reconstructed"] == [2, 32]


def test_the_pair_is_scored(machine: tuple[Path, dict[str, Any], str]) -> None:
    folder, result, _ = machine
    assert {"fve_nrm, round trip", "cosine, round trip", "failed or truncated"} <= result["measures"].keys()
    assert json.loads((folder / "score.json").read_text())["n"] == 12
