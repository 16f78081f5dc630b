"""Kill every command that writes something at random moments: nothing may be lost, doubled, left over or falsely complete.

Run from the repository's root: `python -m tests.kills --kills 20`. It prints one row per command: kills that hit the command at work, and
what did not hold. The suite has the same checks with few kills (`test_interrupted_run`, `test_label_processes`, `test_train_cli`, ...).
"""

import argparse
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from nla.support.errors import HarnessError
from nla.support.seeds import seeded_generator
from tests.conftest import write_tiny_model
from tests.kills.commands import Killable
from tests.kills.process import import_as_it_did, kill_after, run_whole
from tests.kills.weights import COMMANDS


def attack(command: Killable, folder: Path, kills: int, seed: int) -> tuple[int, list[str]]:
    """Kill a command some times; after each kill, check what is there, finish the command, and check again.

    Returns:
        How many kills hit the command while it was running, and what did not hold.
    """
    first = folder / "first"
    run_whole(command.words(first), command.prepared(first))
    import_as_it_did(first)
    seconds = run_whole(command.words(folder / "reference"), command.prepared(folder / "reference"))
    command.remember(folder / "reference")
    moments = seeded_generator("kills", command.name, seed).uniform(0.02, 1.0, kills) * seconds
    hits, faults = 0, []
    for number, moment in enumerate(moments):
        work = folder / (f"kill{number}" if command.anew else "killed")
        cwd = command.prepared(work)
        hits += kill_after(command.words(work), cwd, float(moment), partial(command.meanwhile, work))
        try:
            command.after_kill(work)
            if command.anew or number == kills - 1:
                command.finish(work, cwd)
                command.after_end(work)
        except (AssertionError, HarnessError) as ex:
            faults.append(f"kill {number} after {moment:.2f} s: {ex}")
    return hits, faults


def main() -> int:
    """Attack the chosen commands; exit status 1 if something did not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=[], help="names of commands")
    chosen = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory(prefix="kills-") as scratch:
        model = write_tiny_model(Path(scratch) / "model", "llama")
        for make in COMMANDS:
            command = make(model, Path(scratch))
            if chosen.only and command.name not in chosen.only:
                continue
            began = time.monotonic()
            hits, faults = attack(command, Path(scratch) / command.name.replace(" ", "-"), chosen.kills, chosen.seed)
            print(
                f"{command.name:22} {chosen.kills} kills, {hits} at work, {len(faults)} faults, {time.monotonic() - began:.0f} s",
                flush=True,
            )
            for fault in faults:
                print(f"  {fault}", flush=True)
            failed |= bool(faults)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
