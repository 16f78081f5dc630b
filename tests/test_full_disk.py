"""Commands on a small tmpfs that has no room for what they write. `python -m tests.kills.full_disk` tries all commands and more sizes."""

import subprocess
from pathlib import Path

import pytest

from tests.conftest import write_tiny_model
from tests.kills.commands import Killable, NewTask, Report
from tests.kills.full_disk import attempts, small_disk


@pytest.fixture
def needs_mount(tmp_path: Path) -> None:
    """Skip where no tmpfs can be mounted: only root may do it, and not in every container."""
    try:
        with small_disk(tmp_path / "trial"):
            pass
    except (subprocess.CalledProcessError, OSError) as ex:
        pytest.skip(f"no tmpfs can be mounted here: {ex}")


@pytest.mark.slow
@pytest.mark.usefixtures("needs_mount")
@pytest.mark.parametrize(("make", "kilobytes"), [(Report, 200), (NewTask, 0)])
def test_a_full_disk_is_told_in_one_message_and_the_same_command_ends_the_work_later(
    make: type[Killable], kilobytes: int, tmp_path: Path
) -> None:
    model = write_tiny_model(tmp_path / "model", "llama")

    tried, faults = attempts(make(model, tmp_path), tmp_path / "work", [kilobytes])

    assert faults == []
    assert tried == "1 sizes, 1 too small"
