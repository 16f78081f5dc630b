"""The progress of `audit run`: counts of transcripts, with and without a terminal, and after an interruption."""

import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from inspect_ai import Task
from inspect_ai.dataset import MemoryDataset, Sample
from rich.console import Console

from audit.config import make_audit
from audit.running.progress import RunProgress
from audit.running.run import run_audit

Folder = Callable[[str], Path]


@pytest.mark.slow
def test_transcripts_are_counted_and_a_resumed_run_counts_none_again(tiny_folder: Folder, tmp_path: Path) -> None:
    fields = {"model": f"local/{tiny_folder('llama')}", "model_args": {"dtype": "float32", "threads": 1}, "tasks": ["mmlu", "wildchat"]}
    fields |= {"source": "bundled", "limit": 2, "epochs": 2, "tokens": 1, "max_tokens": 8, "measures": ["verbalized"], "controls": 0}
    config = make_audit(fields, "test")
    lines = []
    for _ in range(2):
        out = io.StringIO()
        progress = RunProgress(Console(file=out))
        run_audit(config, tmp_path, progress=progress)
        lines.append((progress.done, out.getvalue().splitlines()))
    (first, shown), (second, again) = lines
    assert (first, second) == (16, 0)  # 2 tasks x 2 items x 2 epochs, in the base condition and with a stated evaluation
    assert [line.split(" in ")[0] for line in shown] == ["base: 8 transcripts", "positive_control: 8 transcripts"]
    assert all(line.endswith(", 8 of them by an earlier run") for line in again)


def test_a_terminal_gets_a_line_of_at_most_80_columns() -> None:
    out = io.StringIO()
    progress = RunProgress(Console(file=out, force_terminal=True, width=80, color_system=None))
    progress.expect(30)
    with progress, progress.condition("unrelated-1-0.123456789012345678901234567890", [Task(MemoryDataset([Sample("a")]))], 30):
        progress.say("A line above.")
        progress._bar.refresh()
    text = out.getvalue()
    assert "A line above." in text
    assert "0/30" in text
    without_controls = re.sub(r"\x1b\[[0-9?]*[A-Za-z]|\r", "\n", text)
    assert max(map(len, without_controls.splitlines())) <= 80
