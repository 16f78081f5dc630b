"""Where the command was started. Inspect changes into a task's folder while it loads the task, but users give paths from where they are."""

import os
from pathlib import Path

_LAUNCH_DIR = Path.cwd()
"""Current folder when this module was first imported: Inspect's entry point does that before any task is loaded."""


def user_path(path: str | Path) -> Path:
    """A path as the user meant it: relative to where the command was started, if something is there, else as it stands."""
    given = Path(path).expanduser()
    starts = (_LAUNCH_DIR, Path(os.environ.get("PWD", ".")), Path.cwd())
    return next((start / given for start in starts if (start / given).exists()), given)
