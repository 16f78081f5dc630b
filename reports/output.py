"""The folder of a report: replaced only if it carries our own stamp, and in it only the files that a report wrote.

The stamp (`.awareness-report.json`) lists every file of the report with its SHA-256. A file that is not listed, or whose content has
changed since, belongs to the user, and is neither replaced nor deleted. All files are first written into a temporary folder, and then
moved into place one by one with the page last, so that an interruption before that leaves the old report complete. While files are being
moved, the stamp lists the old and the new content of each, so that the same command can finish after a kill.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from nla.support.display import visible
from nla.support.errors import DataError
from nla.support.files import replacing, scratch_folder
from nla.support.locks import LOCK_FILE, exclusive_lock

STAMP_FILE = ".awareness-report.json"
PAGE, COMPARISON, PDF = "index.html", "compare.html", "report.pdf"
_OURS = re.compile(rf"{re.escape(PAGE)}|{re.escape(COMPARISON)}|{re.escape(PDF)}|report\.md|(figures|tables)/[a-z_0-9]+\.(svg|png|csv)")
"""Names that a report may have; any other name in a stamp is ignored, so that a forged stamp cannot name a file of the user's."""
_PURPOSE = "audit report"
Stamp = dict[str, list[str]]
"""SHA-256 digests that each file of the report may have, by its path in the folder."""


def write_files(files: Mapping[str, bytes], out: Path, *, keep_others: bool = False) -> Path:
    """Write the files of a report into a folder, and return the folder.

    Args:
        files: content by path within the folder (names as in `_OURS`).
        out: the folder; it is created if it is missing. A symbolic link is followed.
        keep_others: keep files of the earlier report that are not in `files`, instead of deleting them.

    Raises:
        ConfigError: another process is writing a report into the folder.
        DataError: the folder holds files that no report wrote, a file of the report was changed, or the disk is full or read-only.
    """
    try:
        folder = out.resolve()
        _stamp(folder, out)
        with exclusive_lock(folder, _PURPOSE, folder=True), scratch_folder(folder) as scratch:
            stamp = _stamp(folder, out)
            _check_unchanged({*files} if keep_others else {*stamp, *files}, stamp, folder, out)
            for name, content in files.items():
                (scratch / name).parent.mkdir(exist_ok=True)
                (scratch / name).write_bytes(content)
            _move(stamp, files, scratch, folder, keep_others)
    except (OSError, RuntimeError, ValueError) as ex:  # RuntimeError: a loop of links; ValueError: a null byte in the name
        reason = ex.strerror if isinstance(ex, OSError) and ex.strerror else str(ex)
        raise DataError(f"The report cannot be written to {visible(out)}: {reason}.") from ex
    return out


def _stamp(folder: Path, out: Path) -> Stamp:
    """Read the stamp of a folder; empty if the folder is missing or empty."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{visible(out)} is a file: expected a folder for the report; give another path (-o).")
    path = folder / STAMP_FILE
    if path.is_file() and not path.is_symlink():
        try:
            listed = json.loads(path.read_bytes())["files"]
            return {str(name): [str(digest) for digest in digests] for name, digests in listed.items() if _OURS.fullmatch(str(name))}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as ex:
            raise DataError(f"{visible(out)}/{STAMP_FILE} is damaged; delete the report, or give another folder (-o).") from ex
    entries = list(folder.iterdir()) if folder.is_dir() else []
    if any(entry.name != LOCK_FILE and not entry.name.startswith(".awareness-") for entry in entries):
        raise DataError(f"{visible(out)} holds files that no report wrote: expected an empty folder or a report; give another folder (-o).")
    return {}


def _check_unchanged(names: set[str], stamp: Stamp, folder: Path, out: Path) -> None:
    """Refuse to replace or delete a file that is not as a report wrote it; `names` are all that would be."""
    for part in ("figures", "tables"):
        if (folder / part).is_symlink():
            raise DataError(f"{visible(out)}/{part} is a symbolic link: expected a folder; remove it, or give another folder (-o).")
    for name in sorted(names):
        path = folder / name
        if (path.exists() or path.is_symlink()) and (path.is_symlink() or not path.is_file() or _sha256(path) not in stamp.get(name, [])):
            raise DataError(
                f"{visible(out)}/{name} is not as a report wrote it, so it is not replaced; move it away, or give another folder (-o)."
            )


def _move(stamp: Stamp, files: Mapping[str, bytes], scratch: Path, folder: Path, keep_others: bool) -> None:
    new = {name: [hashlib.sha256(content).hexdigest()] for name, content in files.items()}
    final = (stamp if keep_others else {}) | new
    _write_stamp({name: [*stamp.get(name, []), *new.get(name, [])] for name in sorted({*stamp, *new})}, folder)
    for name in sorted(files, key=lambda name: (name == PAGE, name)):  # the page last
        (folder / name).parent.mkdir(exist_ok=True)
        os.replace(scratch / name, folder / name)
    for name in stamp.keys() - final.keys():
        (folder / name).unlink(missing_ok=True)
    _write_stamp(final, folder)


def _write_stamp(stamp: Stamp, folder: Path) -> None:
    with replacing(folder / STAMP_FILE) as scratch:
        scratch.write_text(json.dumps({"made_by": _PURPOSE, "files": stamp}, indent=1) + "\n", encoding="utf-8")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
