"""Files and folders that appear whole or not at all, and the removal of what killed processes left behind.

Temporary names are random, are created exclusively (a planted symlink is never followed) and lie in the target's folder, so that the
last step is one rename. Each name holds the process id, and the process keeps a lock (flock) on its temporary files and folders. What is
not locked and belongs to no running process was left by a killed one.
"""

import errno
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nla.support.errors import DataError, HarnessError

PREFIX, SUFFIX = ".awareness-", ".tmp"
"""How every temporary name of ours starts and ends."""
_FULL_BYTES = 65_536
"""With less free space than this, a library's failure to write is taken as a full disk, whatever class it raised."""
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
_OLD_SECONDS = 3_600
"""A process id may have been given to another process since; after this time without a change a left-over is deleted anyway."""
_in_use: set[str] = set()
"""Temporary names that this process is using."""


@contextmanager
def replacing(path: Path, private: bool = False) -> Iterator[Path]:
    """Yield a temporary file in the folder of `path` to write to; at the end it takes the place of `path`.

    The file is on the disk (fsync) before it replaces `path`. Where writing fails, `path` is unchanged and the temporary file is removed.

    Args:
        path: the file to write; its folder must exist.
        private: only the user may read the file (mode 0600); otherwise the umask decides.

    Raises:
        DataError: the disk is full or read-only, the folder does not exist, or `path` is a folder.
    """
    scratch: Path | None = None
    handle = -1
    try:
        scratch, handle = _new_file(path.parent, 0o600 if private else 0o666)
        yield scratch
        _settle(scratch, os.fstat(handle).st_mode & 0o777)
        os.replace(scratch, path)
        _sync_folder(path.parent)
    except Exception as ex:
        error = _write_error(path, ex, scratch)
        if error is None:
            raise
        raise error from ex
    finally:
        if scratch is not None:
            with suppress(OSError):
                scratch.unlink(missing_ok=True)
            os.close(handle)
            _in_use.discard(scratch.name)


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Yield a new private folder inside `parent`, which is created where it is missing; remove the new folder at the end.

    A result that is to stay is moved out of it by a rename.

    Raises:
        DataError: the disk is full or read-only, or `parent` is not a folder.
    """
    scratch: Path | None = None
    handle = -1
    try:
        parent.mkdir(parents=True, exist_ok=True)
        scratch = parent / _name()
        scratch.mkdir(mode=0o700)
        handle = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield scratch
    except Exception as ex:
        error = _write_error(parent, ex, scratch)
        if error is None:
            raise
        raise error from ex
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
            _in_use.discard(scratch.name)
        if handle >= 0:
            os.close(handle)


def remove_leftovers(folder: Path, depth: int = 0) -> None:
    """Delete the temporary files and folders of ours that killed processes left in `folder`; those in use stay.

    Args:
        folder: where to look.
        depth: how many levels of folders inside it are cleaned, too; links are not followed.
    """
    if depth:
        with suppress(OSError), os.scandir(folder) as entries:
            inside = [Path(entry) for entry in entries if entry.is_dir(follow_symlinks=False)]
            for child in inside:
                remove_leftovers(child, depth - 1)
    for leftover in folder.glob(f"{PREFIX}*{SUFFIX}"):
        with suppress(OSError):
            handle = os.open(leftover, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails where it is in use
                if not _abandoned(leftover):
                    continue
                if leftover.is_dir():
                    shutil.rmtree(leftover, ignore_errors=True)
                else:
                    leftover.unlink()
            finally:
                os.close(handle)


def _name() -> str:
    name = f"{PREFIX}{os.getpid()}-{secrets.token_hex(8)}{SUFFIX}"
    _in_use.add(name)
    return name


def _abandoned(leftover: Path) -> bool:
    """Whether no running process uses a temporary file. Its lock does not say: some libraries replace the file by an unlocked one."""
    pid = leftover.name.removeprefix(PREFIX).partition("-")[0]
    if not pid.isdecimal() or len(pid) > 10:
        return False  # not a name of ours
    if int(pid) == os.getpid():  # in containers, every command may have the same id
        return leftover.name not in _in_use
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        pass  # it is another user's process
    return time.time() - leftover.stat().st_mtime > _OLD_SECONDS


def _new_file(folder: Path, mode: int) -> tuple[Path, int]:
    """Create a temporary file and lock it; the umask applies to `mode`, as for any new file."""
    path = folder / _name()
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with suppress(OSError):  # a file system without locks: left-overs are then not told from files in use, nothing else
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return path, handle


def _settle(scratch: Path, mode: int) -> None:
    """Bring what was written to the disk, with the mode chosen. The path is opened anew: a library may have replaced the file."""
    handle = os.open(scratch, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fchmod(handle, mode)
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # not every file system can
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _write_error(path: Path, ex: Exception, scratch: Path | None) -> DataError | None:
    """Return the error for a failure to write `path`; None where something else failed inside the block."""
    if isinstance(ex, HarnessError):
        return None
    if isinstance(ex, OSError):
        names = [str(name) for name in (ex.filename, ex.filename2) if name is not None]
        ours = not names or scratch is None or any(name.startswith((str(scratch), str(path))) for name in names)
        return DataError(f"{path} cannot be written: {_reason(ex, path)}.") if ours else None
    number = disk_errno(ex)
    with suppress(OSError):
        if number is None and shutil.disk_usage(scratch.parent if scratch else path.parent).free < _FULL_BYTES:
            number = errno.ENOSPC
    return DataError(f"{path} cannot be written: {_reason(OSError(number, os.strerror(number)), path)}.") if number else None


def disk_errno(ex: BaseException) -> int | None:
    """Return the error number of a full or read-only disk that an exception reports; None for any other exception.

    Libraries written in other languages (safetensors) raise their own classes, with the system's words in the message.
    """
    if isinstance(ex, OSError) and ex.errno in _DISK_ERRORS:
        return ex.errno
    return next((number for number in _DISK_ERRORS if os.strerror(number) in str(ex)), None)


def _reason(ex: OSError, path: Path) -> str:
    if isinstance(ex, FileNotFoundError) and not path.parent.is_dir():
        return f"there is no folder {path.parent}; create it, or give another path"
    if isinstance(ex, IsADirectoryError):
        return "it is a folder; give the path of a file"
    reason = ex.strerror or str(ex) or type(ex).__name__
    if ex.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{reason}; free space, or give another path"
    return f"{reason}; give another path" if ex.errno in (errno.EROFS, errno.EACCES, errno.EPERM) else reason
