"""Where the command was started. Inspect changes into a task's folder while it loads the task, but users give paths from where they are."""

import os
from pathlib import Path

from nla.support.display import visible
from nla.support.errors import ConfigError

_LAUNCH_DIR = Path.cwd()
"""Current folder when this module was first imported: Inspect's entry point does that before any task is loaded."""


def user_path(path: str | Path) -> Path:
    """Return a path as the user meant it: relative to where the command was started if it exists there, otherwise unchanged.

    Raises:
        ConfigError: it cannot be a path (a null byte, a lone surrogate, a name that is too long), may not be read, or starts with `~NAME`
            for a user who does not exist.
    """
    text = str(path)
    if "\0" in text or not _encodes(text):
        raise ConfigError(f"{text[:80]!r} cannot be a path: it holds a null byte or a character that no file name can hold.")
    try:
        given = Path(path).expanduser()
    except RuntimeError:
        raise ConfigError(f"{text[:80]!r} names the home folder of a user who does not exist; write ./~NAME for a folder here.") from None
    starts = (_LAUNCH_DIR, Path(os.environ.get("PWD", ".")), Path.cwd())
    return next((start / given for start in starts if _exists(start / given)), given)


def _encodes(text: str) -> bool:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as ex:
        raise ConfigError(f"{visible(path.name, limit=80)} cannot be a path here: {ex.strerror}.") from ex
