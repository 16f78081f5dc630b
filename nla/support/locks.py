"""One writer at a time per output folder or file.

The lock is an flock on a small file: `.awareness.lock` inside a folder, `.NAME.awareness.lock` beside a file. The kernel frees it when
its holder ends, however it ends, so a lock file of a dead process is simply taken over. The file names its holder in JSON for the message
that a second process gets.
"""

import fcntl
import json
import os
import shlex
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path

from nla.support.display import visible
from nla.support.errors import ConfigError, DataError
from nla.support.files import remove_leftovers

LOCK_FILE = ".awareness.lock"
_FILE_SUFFIXES = (
    *(".csv", ".eval", ".html", ".json", ".jsonl", ".log", ".md", ".parquet", ".pdf", ".png"),
    *(".safetensors", ".svg", ".toml", ".tsv", ".txt", ".yaml", ".yml", ".zip"),
)
"""A path that does not exist yet is a file where it ends in one of these, and a folder otherwise (`runs/llama-3.2`)."""
_DEPTH = 3
"""Levels of folders inside a locked folder that are cleaned; the deepest that a command writes to is WORK/STAGE/checkpoint."""
_MAX_BYTES, _MAX_COMMAND = 4_096, 300
_held: ContextVar[frozenset[Path]] = ContextVar("held_locks", default=frozenset())
"""Lock files that this call's callers hold: a command that is run by another one does not wait for it."""


@contextmanager
def exclusive_lock(path: Path, purpose: str, *, blocking: bool = False, folder: bool | None = None) -> Iterator[None]:
    """Hold the lock of an output folder or file. Taking it again inside the block, in the same thread or task, does nothing.

    Left-overs of killed processes are removed from the folder (`remove_leftovers`) when a lock is taken without `blocking`; where the
    lock is a folder's, from the folders inside it too.

    Args:
        path: folder or file. A folder that is missing is created, and so are the parents of a file.
        purpose: what the lock is held for, e.g. `audit run`; a second process names it.
        blocking: wait for the lock instead of refusing; for short sections that read a file and write it again.
        folder: whether `path` is a folder; None looks at the path, or at its name where nothing is there.

    Raises:
        ConfigError: another process, or another thread of this one, holds the lock. The message names it.
        DataError: the lock file cannot be created, or the file system has no locks.
    """
    lock_file = _lock_file(path, folder)
    if lock_file in _held.get():
        yield
        return
    handle = _acquire(lock_file, path, blocking)
    token = _held.set(_held.get() | {lock_file})
    try:
        _write_holder(handle, purpose)
        if not blocking:
            remove_leftovers(lock_file.parent, _DEPTH if lock_file.name == LOCK_FILE else 0)
        yield
    finally:
        _held.reset(token)
        with suppress(OSError):
            lock_file.unlink()  # before the lock is freed; who waits for this file sees that it is gone, and takes the new one
        os.close(handle)


def output_lock(path: Path | None, purpose: str) -> AbstractContextManager[None]:
    """Return the lock of a file that a command may be asked to write; nothing is locked where there is none.

    To be taken before the work is done, so that an output that cannot be written is known at once.

    Raises:
        ConfigError, DataError: see `exclusive_lock` (on entry).
    """
    return nullcontext() if path is None else exclusive_lock(path, purpose)


def _lock_file(path: Path, folder: bool | None) -> Path:
    """Return the absolute path of a lock file, in a folder that exists."""
    try:
        path = path.resolve()
        if folder is None:
            folder = path.is_dir() or not (path.exists() or path.suffix.lower() in _FILE_SUFFIXES)
        (path if folder else path.parent).mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError, ValueError) as ex:
        reason = ex.strerror if isinstance(ex, OSError) and ex.strerror else str(ex)
        raise DataError(f"{path} cannot be written: {reason}.") from ex
    return path / LOCK_FILE if folder else path.with_name(f".{path.name}{LOCK_FILE}")


def _acquire(lock_file: Path, path: Path, blocking: bool) -> int:
    """Return the locked handle of the lock file that lies at its path when the lock is got."""
    while True:
        handle = -1
        try:
            handle = os.open(lock_file, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise DataError(f"{lock_file} is not a regular file; delete it.")
            fcntl.flock(handle, fcntl.LOCK_EX if blocking else fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(handle, lock_file):
                return handle
            os.close(handle)  # its holder has deleted it in the meantime
        except BlockingIOError:
            message = f"{path} is in use by {_holder(handle)}. Wait until it has ended, stop it, or give another path."
            os.close(handle)
            raise ConfigError(message) from None
        except BaseException as ex:
            if handle >= 0:
                os.close(handle)
            if isinstance(ex, OSError):
                raise DataError(f"{path} cannot be locked: {ex.strerror or ex} ({lock_file}).") from ex
            raise


def _is_at(handle: int, lock_file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(lock_file, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _write_holder(handle: int, purpose: str) -> None:
    holder = {
        "purpose": purpose,
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])[:_MAX_COMMAND],
        "since": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
    }
    with suppress(OSError):  # on a full disk the lock holds all the same; only its message is poorer
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(holder).encode(), 0)


def _holder(handle: int) -> str:
    """Name the holder of a lock, in words. The file may say anything: another user can have written it."""
    try:
        holder = json.loads(os.pread(handle, _MAX_BYTES, 0))
        purpose, pid, host, command, since = (visible(holder[key], limit=80) for key in ("purpose", "pid", "host", "command", "since"))
        return f"`{purpose}` (process {pid} on {host}, `{command}`, since {since})"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "another process"
