"""Kill every command that writes something at random moments: nothing may be lost, doubled, left over or falsely complete.

Run from the repository's root: `python -m tests.kills --kills 20`. It prints one row per command: kills that hit the command at work, and
what did not hold. The suite has the same checks with few kills (`test_interrupted_run`, `test_label_processes`, `test_train_cli`, ...).
"""

import sys
from functools import partial
from pathlib import Path

from nla.support.errors import HarnessError
from nla.support.seeds import seeded_generator
from tests.kills.commands import Killable
from tests.kills.process import import_as_it_did, kill_after, run_whole
from tests.kills.tries import parser, try_each


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
    hits, runs, faults = 0, 0, []
    for number, moment in enumerate(moments):
        work = folder / f"run{runs}"
        cwd = command.prepared(work)
        was_running = kill_after(command.words(work), cwd, float(moment), partial(command.meanwhile, work))
        hits += was_running
        is_last_of_run = command.anew or not was_running or number == kills - 1
        try:
            command.after_kill(work)
            if is_last_of_run:
                command.finish(work, cwd)
                command.after_end(work)
        except (AssertionError, HarnessError) as ex:
            faults.append(f"kill {number} after {moment:.2f} s: {ex}")
        runs += is_last_of_run
    return hits, faults


def main() -> int:
    """Attack the chosen commands; exit status 1 if something did not hold."""
    options = parser(__doc__)
    options.add_argument("--kills", type=int, default=20)
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()

    def attempt(command: Killable, folder: Path) -> tuple[str, list[str]]:
        hits, faults = attack(command, folder, chosen.kills, chosen.seed)
        return f"{chosen.kills} kills, {hits} at work", faults

    return try_each(chosen.only, attempt)


if __name__ == "__main__":
    sys.exit(main())
