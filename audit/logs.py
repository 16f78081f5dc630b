"""The one reader of Inspect logs for every command: where logs are, which of them count, and what happens to unreadable ones.

A *cell* is one task in one condition. A killed and resumed run leaves several logs of a cell, and only the newest successful one
counts; every function here keeps to that, so that no item is counted twice. A log that cannot be read (cut off by a kill or a full
disk, or no log at all) is named in a warning and skipped.
"""

import json
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from inspect_ai.log import EvalLog, read_eval_log
from rich.console import Console

from audit.config import BASE, CONFIG_FILE
from nla.support.display import plain, visible
from nla.support.errors import DataError, first_line

LOGS = "logs"

Warn = Callable[[str], None]
"""Called with one sentence about each log that is left out."""

_MOST_UNPACKED = 8 * 2**30
"""Bytes that the members of a log may take unpacked. Reading needs several times as much memory, so a larger log is refused."""
_JSON_LOG = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}[:-]\d{2}[:-]\d{2}.*\.json")
"""Names of logs in JSON start with a time, as Inspect writes them."""
_JSON_START = re.compile(rb'\s*\{\s*"version":\s*\d+,\s*"status":\s*"')
"""First bytes of an Inspect log in JSON, by which a renamed log is told from the other JSON files in a folder."""
_FIRST_BYTES = 200
_SAME_RESULTS = {"max_retries", "timeout", "attempt_timeout", "max_connections", "adaptive_connections", "batch", "cache"}
"""Generation settings that do not change what a model writes: two logs that differ only in these belong to the same cell."""


@dataclass(frozen=True)
class LogHeader:
    """A log without its samples."""

    location: str
    log: EvalLog
    """Without samples."""
    changed: float
    """Modification time of the file (seconds since 1970)."""

    @property
    def age_key(self) -> tuple[datetime, float]:
        """Sorts logs from the oldest to the newest: by the time of creation that the log states, then by modification time."""
        created = datetime.fromisoformat(str(self.log.eval.created))
        return created if created.tzinfo else created.replace(tzinfo=UTC), self.changed


def warn_on_stderr(message: str) -> None:
    """Print a warning on stderr, with control characters shown as escapes."""
    Console(stderr=True).print(plain(f"warning: {message}"), soft_wrap=True)


def read_log(location: str, *, header_only: bool = False) -> EvalLog:
    """Read an Inspect log.

    Args:
        location: path of a .eval or .json file.
        header_only: leave out the samples.

    Raises:
        DataError: the file is missing, truncated, too large or no Inspect log.
    """
    try:
        _check_size(location)
        # Inspect reads the header of a JSON log with a streaming parser, which takes memory without bound on nested lists.
        is_json = location.endswith(".json")
        log = read_eval_log(location, header_only=header_only and not is_json)
        if header_only and is_json:
            log.samples = None
        return log
    except DataError:
        raise
    except Exception as ex:  # the readers of zip, zstd, JSON and pydantic each raise their own classes
        why = first_line(ex)
        raise DataError(
            f"{location} cannot be read as an Inspect log ({why}); expected a complete .eval or .json log. If it was cut off, delete it "
            "and run that task again."
        ) from None


def why_failed(log: EvalLog) -> str:
    """Return on one line why a log has no results: the first line of its error, or its status."""
    return visible(first_line(Exception(log.error.message)) if log.error else log.status, limit=300)


def _check_size(location: str) -> None:
    """Refuse a log whose packed members would not fit into memory, before any of them is unpacked."""
    if location.endswith(".eval"):
        with zipfile.ZipFile(location) as packed:
            unpacked = sum(member.file_size for member in packed.infolist())
        if unpacked > _MOST_UNPACKED:
            raise DataError(f"{location} unpacks to {unpacked / 2**30:.0f} GB; expected at most {_MOST_UNPACKED / 2**30:.0f} GB.")


def log_headers(paths: Iterable[Path], warn: Warn = warn_on_stderr, leave_out: Path | None = None) -> list[LogHeader]:
    """Headers of the logs among some files and folders (searched recursively), from the oldest to the newest.

    Unreadable logs are passed to `warn` and left out. Temporary files of a killed command (names that start with a dot) are ignored,
    and of several copies of one log (such as the one that `audit score` wrote) only the copy changed last is kept.

    Args:
        paths: the files and folders.
        warn: called for each log that cannot be read.
        leave_out: a folder whose logs are ignored where it lies inside one of the given folders.

    Raises:
        DataError: a path does not exist.
    """
    newest_copy: dict[str, LogHeader] = {}
    for location in _locations(paths, leave_out):
        try:
            header = LogHeader(location, read_log(location, header_only=True), Path(location).stat().st_mtime)
            created = header.age_key
        except (DataError, OSError, ValueError) as ex:
            warn(f"{ex if isinstance(ex, DataError) else f'{location} cannot be read ({first_line(ex)}).'} This log is skipped.")
            continue
        copy = newest_copy.get(header.log.eval.eval_id)
        if copy is None or created >= copy.age_key:
            newest_copy[header.log.eval.eval_id] = header
    return sorted(newest_copy.values(), key=lambda header: header.age_key)


def _locations(paths: Iterable[Path], leave_out: Path | None = None) -> list[str]:
    """Paths of all log files, each once."""
    locations: list[str] = []
    for path in paths:
        if not path.exists():
            raise DataError(f"{path} does not exist; give a .eval or .json log, or a folder of them.")
        files = _log_files(path) if path.is_dir() else [path]
        if leave_out is not None and path.resolve() in leave_out.resolve().parents:
            files = [file for file in files if leave_out.resolve() not in file.resolve().parents]
        locations += map(str, files)
    return list({Path(location).resolve(): location for location in locations}.values())


def _log_files(folder: Path) -> list[Path]:
    """The logs in a folder and its subfolders. Inspect's own listing would read some of them, and leaves out renamed logs in JSON."""
    files = (file for file in sorted(folder.rglob("*")) if file.suffix in (".eval", ".json") and not file.name.startswith("."))
    return [file for file in files if file.is_file() and (file.suffix == ".eval" or _is_json_log(file))]


def _is_json_log(file: Path) -> bool:
    if _JSON_LOG.fullmatch(file.name):
        return True
    try:
        with file.open("rb") as opened:
            return _JSON_START.match(opened.read(_FIRST_BYTES)) is not None
    except OSError:
        return False


def newest_of_cells(paths: Sequence[Path], warn: Warn = warn_on_stderr) -> Iterator[EvalLog]:
    """Yield the newest successful log of each cell among some logs and folders of logs, with its samples.

    In an audit's folder a cell is a condition and a task. Anywhere else two logs belong to the same cell if task, task arguments, model,
    model arguments and generation settings are equal and they ask for the same samples.

    Args:
        paths: logs, folders of logs, or folders of audits.
        warn: called for each log that is skipped because it cannot be read or did not finish, and once for logs that were superseded.

    Raises:
        DataError: a path does not exist.
    """
    cells: dict[str, list[LogHeader]] = {}
    for header in log_headers(paths, warn):
        cells.setdefault(_cell(header), []).append(header)
    superseded = 0
    for headers in cells.values():
        finished = [header for header in headers if header.log.status == "success"]
        if not finished:
            last = headers[-1]
            warn(f"{last.location} did not finish (status {last.log.status}), and no other log of its cell did. It is skipped.")
        superseded += max(0, len(finished) - 1)
        yield from _newest_readable(finished, warn)
    if superseded:
        warn(f"{superseded} older logs are left out, because the same tasks were run again with the same settings; the newest one counts.")


def _newest_readable(headers: Sequence[LogHeader], warn: Warn) -> Iterator[EvalLog]:
    """The newest log whose samples can be read, if there is any; `headers` are sorted from the oldest to the newest."""
    for header in reversed(headers):
        try:
            yield read_log(header.location)
            return
        except DataError as ex:
            warn(f"{ex} This log is skipped.")


def _cell(header: LogHeader) -> str:
    """Equal for logs of the same cell."""
    spec, folder = header.log.eval, Path(header.location).resolve().parent
    if folder.parent.name == LOGS and (folder.parent.parent / CONFIG_FILE).is_file():
        return json.dumps([str(folder), spec.task])
    settings = header.log.plan.config.model_dump(exclude_none=True, exclude=_SAME_RESULTS)
    part = spec.config.limit if isinstance(spec.config.limit, tuple) else None  # a whole number takes the first items, a range a part
    return json.dumps(
        [spec.task, spec.task_args, spec.model, spec.model_args, settings, part, spec.config.sample_id], sort_keys=True, default=str
    )


def newest_finished(folder: Path, warn: Warn = warn_on_stderr) -> list[EvalLog]:
    """The newest successful log of each task in the folder of one condition, with samples, in the order of task names.

    The list is empty where the folder does not exist. Logs that cannot be read are passed to `warn`.
    """
    tasks: dict[str, list[LogHeader]] = {}
    for header in log_headers([folder], warn) if folder.is_dir() else []:
        if header.log.status == "success":
            tasks.setdefault(header.log.eval.task, []).append(header)
    return [log for name in sorted(tasks) for log in _newest_readable(tasks[name], warn)]


def base_logs(out: Path, warn: Warn = warn_on_stderr) -> list[EvalLog]:
    """The newest successful log of each task in an audit's base condition; `out` is the audit's folder."""
    return newest_finished(out / LOGS / BASE, warn)


def set_unreadable_aside(folder: Path, warn: Warn = warn_on_stderr) -> list[Path]:
    """Rename the logs in a folder that cannot be read (cut off by a kill or a full disk, or damaged), so that they are made again.

    Nothing is deleted: each file gets `.unreadable` appended to its name. Returns the new paths. The samples are read too, because a log
    with a damaged sample has a header that says that it is complete.

    Raises:
        DataError: a file cannot be renamed.
    """
    moved = []
    for file in [file for file in _log_files(folder) if file.parent == folder] if folder.is_dir() else []:
        try:
            read_log(str(file))
        except DataError as ex:
            target = file.with_name(f"{file.name}.unreadable")
            try:
                file.rename(target)
            except OSError as error:
                raise DataError(f"{file} cannot be read and cannot be renamed ({first_line(error)}); delete it.") from ex
            warn(f"{file.name} cannot be read, so it is made again; the file is kept as {target.name}.")
            moved.append(target)
    return moved
