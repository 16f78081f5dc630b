"""A command in a process of its own that can be killed at any moment.

The process is forked from one in which the modules are loaded already, so that a kill hits the command's work and not its imports.
"""

import contextlib
import importlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.commands import MAINS

STDERR, MODULES = "stderr.txt", "modules.txt"


def start(words: Sequence[str], cwd: Path, messages: Path | None = None) -> int:
    """Start a command line, given as words, in a folder, and return the process's id.

    What it prints goes to `stderr.txt` in the folder `messages`, by default the one it runs in.
    """
    cwd.mkdir(parents=True, exist_ok=True)
    messages = cwd if messages is None else messages
    child = os.fork()
    if child:
        return child
    os.setsid()
    status = 1
    try:
        os.chdir(cwd)
        out = os.open(messages / STDERR, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.stdout, sys.stderr = (open(descriptor, "w", buffering=1, closefd=False, encoding="utf-8") for descriptor in (1, 2))  # noqa: SIM115
        sys.argv = list(words)
        MAINS[words[0]]()
        status = 0
    except SystemExit as ex:
        status = ex.code if isinstance(ex.code, int) else int(ex.code is not None)
    except BaseException as ex:  # a finding, which must not reach the parent's code
        os.write(2, "".join(traceback.format_exception(ex)).encode())
    finally:
        (messages / MODULES).write_text("\n".join(sys.modules), encoding="utf-8")
        os._exit(status)


def import_as_it_did(cwd: Path) -> None:
    """Import what a finished command had imported, so that later ones spend their time on their work."""
    for name in (cwd / MODULES).read_text().split("\n"):
        with contextlib.suppress(Exception):
            importlib.import_module(name)


def wait(process: int) -> int:
    """Wait for the end of a command, and return its exit status."""
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status)


def run_whole(words: Sequence[str], cwd: Path) -> float:
    """Run a command to its end, and return the seconds that it took.

    Raises:
        AssertionError: it failed.
    """
    began = time.monotonic()
    status = wait(start(words, cwd))
    assert status == 0, f"{words[0]} {words[1]} ended with {status}: {(cwd / STDERR).read_text()[-2_000:]}"
    return time.monotonic() - began


def kill_after(words: Sequence[str], cwd: Path, seconds: float, meanwhile: Callable[[], None] = lambda: None) -> bool:
    """Start a command and kill its whole process group after some seconds.

    Args:
        words: the command line.
        cwd: the folder it runs in.
        seconds: when to kill it.
        meanwhile: called again and again until then.

    Returns:
        Whether it was still running.
    """
    process = start(words, cwd)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            break
        meanwhile()
        time.sleep(0.01)
    running = os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    if running:
        os.killpg(process, signal.SIGKILL)
    wait(process)
    return running
