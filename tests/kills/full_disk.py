"""Run every command on a disk that is full, or almost: one message, nothing torn or left over, and the same command ends the work later.

Run as root from the repository's root: `python -m tests.kills.full_disk`. Each command's output lies on a tmpfs, which is given a little
more room than its input takes.
"""

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from nla.support.errors import HarnessError
from tests.kills.commands import Killable, Label
from tests.kills.process import STDERR, import_as_it_did, run_whole, start, wait
from tests.kills.tries import parser, try_each

ROOM = (0, 4, 40, 200, 1_000, 2_000)
"""Free kilobytes."""
_MAX_LINES = 4


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Mount a tmpfs of 2 GB in a folder for as long as the context lasts. Only root may do it; others get a CalledProcessError."""
    folder.mkdir(parents=True)
    _mount(folder, "size=2000m")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _mount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True, capture_output=True)


def leave_room(folder: Path, kilobytes: int) -> None:
    """Give a mounted tmpfs as much room as its files take, and some kilobytes."""
    used = int(subprocess.run(["df", "--output=used", "-k", str(folder)], check=True, capture_output=True, text=True).stdout.split()[-1])
    _mount(folder, f"remount,size={max(used + kilobytes, 4)}k")  # size=0 would mean that there is no limit


def attempt(command: Killable, disk: Path, kilobytes: int) -> bool:
    """Run a command on an almost full disk, then make room and run it again.

    Args:
        command: its `remember` was called with the work of a whole run.
        disk: a mounted tmpfs.
        kilobytes: room that is left.

    Returns:
        Whether the disk was too small for it.

    Raises:
        AssertionError: something did not hold.
    """
    work, messages = disk / "work", disk.parent / f"{disk.name}-messages"
    messages.mkdir(exist_ok=True)
    cwd = command.prepared(work)
    leave_room(disk, kilobytes)
    status = wait(start(command.words(work), cwd, messages))
    said = (messages / STDERR).read_text()
    _mount(disk, "remount,size=2000m")
    assert "Traceback" not in said, said[-1_500:]
    if status:
        errors = said[said.rindex("error: ") :] if "error: " in said else said[-600:]
        assert status == 2, f"exit status {status}: {errors}"
        assert errors.startswith("error: "), errors
        assert len(errors.strip().splitlines()) <= _MAX_LINES, errors
        assert "No space left" in errors or "the disk is full" in errors, errors
    command.after_kill(work)
    command.finish(work, cwd)
    command.after_end(work)
    return bool(status)


def attempts(command: Killable, folder: Path, room: Sequence[int]) -> tuple[str, list[str]]:
    """Run a command with each amount of room; return what was tried, in words, and what did not hold."""
    if isinstance(command, Label):
        return "not tried: a label server has no end", []
    run_whole(command.words(folder), command.prepared(folder))
    command.remember(folder)
    import_as_it_did(folder)
    full, faults = 0, []
    for kilobytes in room:
        with small_disk(folder / f"disk-{kilobytes}") as disk:
            try:
                full += attempt(command, disk, kilobytes)
            except (AssertionError, HarnessError) as ex:
                faults.append(f"{kilobytes} kB: {ex}")
    return f"{len(room)} sizes, {full} too small", faults


def main() -> int:
    """Try the chosen commands with each amount of room; exit status 1 if something did not hold."""
    options = parser(__doc__)
    options.add_argument("--room", nargs="*", type=int, default=ROOM, help="free kilobytes")
    chosen = options.parse_args()
    return try_each(chosen.only, partial(attempts, room=chosen.room))


if __name__ == "__main__":
    sys.exit(main())
