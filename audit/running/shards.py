"""How the transcripts of some logs are divided into shards, and the plan that keeps every worker to one division.

The transcripts of all logs, in the order of the logs' age and then in their own, are cut into N runs of equal length; shard I is the I-th
run. Whoever comes first writes the plan into the output folder: the settings, the number of shards, and the logs. Every later worker is
held to it, so that parts of other settings, or of other logs, never meet in one folder. Workers share nothing else.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from audit.config import refuse_other_settings
from audit.logs import LogHeader, Warn
from audit.running.finished_log import scorable
from audit.running.rescore import chosen_logs, copy_paths, keep_settings
from audit.running.rescore_config import RescoreConfig, settings_of
from nla.kernels.compute_thread import on_compute_thread
from nla.models.precision import resolve_device, resolve_precision
from nla.support.display import visible
from nla.support.errors import ConfigError, HarnessError, first_line
from nla.support.files import replacing
from nla.support.locks import exclusive_lock

PLAN_FILE = "audit_score.shards"
"""File of the plan in an output folder. Like that of the settings, its name does not end in `.json`."""
PARTS = "shards"
"""Folder of the shards' work in an output folder."""
_MOST_SHARDS = 100_000
_SHOWN = 3
"""Names of logs that a message lists."""


@dataclass(frozen=True)
class Shard:
    """One of the shards into which the work is divided."""

    number: int
    """From 1 to `of`."""
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


class PlannedLog(BaseModel):
    """A log of the plan."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[^/\x00]+\.(eval|json)$")
    """File name of its copy in the output folder."""
    log_id: str
    n_bytes: int
    """Size of the file, by which a log that was changed is told."""
    transcripts: int = Field(ge=0)
    """How many are scored; 0 where the log cannot be scored."""
    why_not: str = ""
    """Why it cannot be scored; empty where it can."""


@dataclass(frozen=True)
class Part:
    """The transcripts of one log that belong to one shard: those from `start` to before `stop`, as the log numbers them from 0."""

    log: PlannedLog
    shard: Shard
    start: int
    stop: int

    def path(self, out: Path) -> Path:
        """Where its scored transcripts are kept. No command that reads a folder's logs takes the file for a whole log."""
        return shard_folder(out, self.shard) / f"{self.log.name}.part"


class ShardPlan(BaseModel):
    """The plan in an output folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shards: int = Field(ge=1, le=_MOST_SHARDS)
    settings: dict[str, Any]
    """Those of `audit score`, and the version of this program."""
    dtype: str
    """For logs that do not record their own: the one that the first worker's machine runs fastest, or that the user named."""
    logs: tuple[PlannedLog, ...]

    def parts(self, number: int) -> list[Part]:
        """Return the parts of one shard, in the order of the logs; none where there are fewer transcripts than shards."""
        total = sum(log.transcripts for log in self.logs)
        first, end = (number - 1) * total // self.shards, number * total // self.shards
        parts, before = [], 0
        for log in self.logs:
            start, stop = max(first - before, 0), min(end - before, log.transcripts)
            if start < stop:
                parts.append(Part(log, Shard(number, self.shards), start, stop))
            before += log.transcripts
        return parts

    def finished(self, out: Path) -> list[int]:
        """Return the numbers of the shards of which every part is there."""
        return [number for number in range(1, self.shards + 1) if all(part.path(out).is_file() for part in self.parts(number))]


def parse_shard(text: str) -> Shard:
    """Return the shard that a user names as `I/N`.

    Raises:
        ConfigError: it is not two whole numbers, or I is not from 1 to N.
    """
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip(), re.ASCII)
    shard = Shard(int(match[1]), int(match[2])) if match else Shard(0, 0)
    if not 1 <= shard.number <= shard.of <= _MOST_SHARDS:
        raise ConfigError(f"Invalid --shard '{visible(text, limit=40)}': expected I/N with I from 1 to N, such as 3/24.")
    return shard


def shard_folder(out: Path, shard: Shard) -> Path:
    """Return the folder of one shard's work."""
    return out / PARTS / f"{shard.number:0{len(str(shard.of))}d}-of-{shard.of}"


def make_plan(paths: Sequence[str], out: Path, config: RescoreConfig, shards: int, warn: Warn) -> tuple[ShardPlan, dict[str, str]]:
    """Return the plan of an output folder, which is made where there is none, and where each of its logs lies, by the log's id.

    Logs that cannot be scored are left out of the work beside others that can, and the plan says why.

    Args:
        paths: logs, or folders of logs.
        out: the output folder, which is created if it does not exist.
        config: what to measure.
        shards: N.
        warn: called with a sentence for each log that is left out.

    Raises:
        ConfigError: there is no log, or the folder holds a plan or scores of other settings, another N or other logs.
        DataError, ModelError: none of the logs can be scored, or the folder cannot be written to.
    """
    headers = chosen_logs(paths, out, config, warn)
    copies = copy_paths(headers, out)
    with exclusive_lock(out / PLAN_FILE, "audit score (dividing the work)", blocking=True, folder=False):
        if (out / PLAN_FILE).is_file():
            plan = read_plan(out)
            _check(plan, out, config, shards, headers)
        else:
            plan = _new_plan(headers, copies, config, shards)
            keep_settings(config, out)
            with replacing(out / PLAN_FILE) as scratch:
                scratch.write_text(plan.model_dump_json(indent=1) + "\n", encoding="utf-8")
    for log in plan.logs:
        if log.why_not:
            warn(f"{log.why_not} This log is skipped.")
    return plan, {header.log.eval.eval_id: header.location for header in headers}


def read_plan(out: Path) -> ShardPlan:
    """Return the plan of an output folder.

    Raises:
        ConfigError: there is none, or it cannot be read.
    """
    path = out / PLAN_FILE
    try:
        return ShardPlan.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except OSError as ex:
        raise ConfigError(
            f"{path} cannot be read ({ex.strerror}); expected a folder that `audit score LOGS -o OUT --shard I/N` made."
        ) from ex
    except (ValidationError, ValueError, RecursionError) as ex:
        reason = f"{path} is damaged ({first_line(ex)})"
        raise ConfigError(f"{reason}; delete it, and give the `audit score` command again: what is done is kept.") from ex


def _new_plan(headers: Sequence[LogHeader], copies: Sequence[Path], config: RescoreConfig, shards: int) -> ShardPlan:
    if there := [copy.name for copy in copies if copy.exists()]:
        raise ConfigError(
            f"{copies[0].parent} holds scored copies that were made without --shard ({_listed(there)}); give another folder (--out)."
        )
    logs, errors = [], []
    for header, copy in zip(headers, copies, strict=True):
        try:
            transcripts, why_not = len(scorable(header.location, config)[0].samples or []), ""
        except HarnessError as ex:
            errors.append(ex)
            transcripts, why_not = 0, str(ex)
        log_id = header.log.eval.eval_id
        logs.append(PlannedLog(name=copy.name, log_id=log_id, n_bytes=_size(header), transcripts=transcripts, why_not=why_not))
    if len(errors) == len(logs):
        raise errors[0]
    return ShardPlan(shards=shards, settings=_settings(config), dtype=_dtype(config), logs=tuple(logs))


def _settings(config: RescoreConfig) -> dict[str, Any]:
    return {**settings_of(config), "version of awareness-audit": version("awareness-audit")}


def _dtype(config: RescoreConfig) -> str:
    """Return the dtype for logs that do not record their own. `auto` measures, and another machine could measure another one."""
    requested = str(config.model_args.get("dtype", "auto"))
    if requested != "auto":
        return requested
    device = str(config.model_args.get("device", "auto"))
    return on_compute_thread(lambda: resolve_precision("auto", resolve_device(device))).name


def _check(plan: ShardPlan, out: Path, config: RescoreConfig, shards: int, headers: Sequence[LogHeader]) -> None:
    """Refuse what does not belong to the plan: other settings, another number of shards, other logs, or logs that were changed."""
    refuse_other_settings(out, "shards", plan.settings, _settings(config))
    if shards != plan.shards:
        raise ConfigError(
            f"{out} is divided into {plan.shards} shards, not {shards}; give --shard I/{plan.shards}, or another folder (--out)."
        )
    planned = {log.log_id: log for log in plan.logs}
    given = {header.log.eval.eval_id: header for header in headers}
    missing = [planned[log_id].name for log_id in planned.keys() - given.keys()]
    added = [Path(given[log_id].location).name for log_id in given.keys() - planned.keys()]
    changed = [log.name for log_id, log in planned.items() if log_id in given and _size(given[log_id]) != log.n_bytes]
    differing = {"missing": missing, "new": added, "changed since": changed}
    if found := "; ".join(f"{what}: {_listed(names)}" for what, names in differing.items() if names):
        raise ConfigError(f"{out} was divided for other logs ({found}); give the logs that it was divided for, or another folder (--out).")


def _size(header: LogHeader) -> int:
    return Path(header.location).stat().st_size


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(visible(name, limit=80) for name in sorted(names)[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
