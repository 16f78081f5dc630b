"""All commands that are killed or given a full disk, and the loop that tries them one after the other."""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.conftest import write_tiny_model
from tests.kills.commands import (
    Agreement,
    Analyze,
    Calibrate,
    Compare,
    Controls,
    Killable,
    Label,
    NewTask,
    Report,
    Rewrite,
    Run,
    Score,
)
from tests.kills.weights import Export, Fetch, OrganismCheck, Train, TrainOrganism

COMMANDS: tuple[Callable[[Path, Path], Killable], ...] = (
    Run,
    Score,
    Analyze,
    Report,
    Label,
    Compare,
    Calibrate,
    Agreement,
    Controls,
    Rewrite,
    NewTask,
    Train,
    TrainOrganism,
    Export,
    OrganismCheck,
    Fetch,
)


def parser(text: str | None) -> argparse.ArgumentParser:
    """A command line with the option that chooses commands."""
    made = argparse.ArgumentParser(description=text)
    made.add_argument("--only", nargs="*", default=[], help="names of commands")
    return made


def try_each(only: list[str], attempt: Callable[[Killable, Path], tuple[str, list[str]]]) -> int:
    """Try the chosen commands, all without a choice, and print a row for each.

    Args:
        only: their names.
        attempt: gets a command and a folder for its work; returns what was tried, in words, and what did not hold.

    Returns:
        The exit status: 1 if something did not hold.
    """
    failed = False
    with tempfile.TemporaryDirectory(prefix="tries-") as scratch:
        model = write_tiny_model(Path(scratch) / "model", "llama")
        for make in COMMANDS:
            command = make(model, Path(scratch))
            if only and command.name not in only:
                continue
            began = time.monotonic()
            tried, faults = attempt(command, Path(scratch) / command.name.replace(" ", "-"))
            print(f"{command.name:22} {tried}, {len(faults)} faults, {time.monotonic() - began:.0f} s", flush=True)
            for fault in faults:
                print(f"  {fault}", flush=True)
            failed |= bool(faults)
    return int(failed)
