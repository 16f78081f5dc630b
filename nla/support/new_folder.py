"""A folder that a command writes whole or not at all, and never over another one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nla.support.errors import DataError
from nla.support.files import scratch_folder
from nla.support.locks import exclusive_lock


@contextmanager
def new_folder(out: Path, purpose: str) -> Iterator[Path]:
    """Yield a path beside `out` at which to make a folder, and rename it to `out` at the end.

    Args:
        out: folder that does not exist yet, or is empty.
        purpose: what the lock on `out` is held for, shown to a second command.

    Raises:
        ConfigError: another process writes to `out`.
        DataError: `out` is not empty, or cannot be written.
    """
    with exclusive_lock(out, purpose, folder=False):  # beside the folder, which a rename replaces
        if out.is_file() or (out.is_dir() and any(out.iterdir())):
            raise DataError(f"{out} is not empty; give a new folder.")
        with scratch_folder(out.parent) as scratch:
            yield scratch / "new"
            if out.exists():
                out.rmdir()
            (scratch / "new").replace(out)
