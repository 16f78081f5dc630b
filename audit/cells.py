"""The cells of an audit: which there are to run, which are done, and how long they took. A cell is one task under one condition."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from inspect_ai.log import EvalLog

from audit.config import AuditConfig, Condition
from audit.logs import LOGS, log_headers
from audit.task_files import task_info, task_names
from tasks._framing import SHIPPED
from tasks._info import Role


@dataclass(frozen=True)
class CellState:
    """The newest log of a cell."""

    status: str
    """Inspect's: started, success, cancelled or error."""
    n_samples: int
    """Finished samples."""
    seconds: float | None
    """How long the cell took; None for one that did not finish."""


def is_run(name: str, config: AuditConfig, condition: Condition) -> bool:
    """Whether a condition includes a task.

    One with a framing includes only tasks that have rewrites, which deployment controls have not. One without measures shows only what
    it does to the task's own score, and deployment controls have none.

    Args:
        name: name of a file in `tasks/`, or path of a task file.
        config: the audit.
        condition: one of its conditions.
    """
    if condition.framing is not None:
        return _has_rewrites(name, config)
    return condition.measured or not _is_deployment_control(name)


def _is_deployment_control(name: str) -> bool:
    """Whether a task of `tasks/` is real-use traffic. A user's own file is not opened, since it may be gone when the audit is analyzed."""
    return name in task_names() and task_info(name).role is Role.DEPLOYMENT_CONTROL


def _has_rewrites(name: str, config: AuditConfig) -> bool:
    """Whether a task has rewrites: named in the audit, or shipped for its bundled items."""
    bundled = config.sources.get(name, config.source) == "bundled"
    return name in config.rewrites or (bundled and (SHIPPED / f"{Path(name).stem}.jsonl").is_file())


def cell_names(config: AuditConfig, condition: Condition) -> list[str]:
    """Names of the tasks that a condition runs, as Inspect's logs name them."""
    return [Path(name).stem for name in config.tasks if is_run(name, config, condition)]


def cell_states(out: Path) -> dict[tuple[str, str], CellState]:
    """The state of each (condition, task) that has a readable log: of the newest successful log, or else of the newest log."""
    folders = sorted(folder for folder in (out / LOGS).iterdir() if folder.is_dir()) if (out / LOGS).is_dir() else []
    return {(folder.name, task): state for folder in folders for task, state in task_states(folder).items()}


def task_states(folder: Path) -> dict[str, CellState]:
    """The state of each task in the log folder of one condition, as in `cell_states`; empty where the folder does not exist."""
    states: dict[str, CellState] = {}
    for header in log_headers([folder]) if folder.is_dir() else []:
        log, task = header.log, header.log.eval.task
        if log.status == "success" or task not in states or states[task].status != "success":
            n_samples = log.results.completed_samples if log.results else 0
            states[task] = CellState(log.status, n_samples, _seconds(log) if log.status == "success" else None)
    return states


def _seconds(log: EvalLog) -> float:
    started, completed = (datetime.fromisoformat(str(time)) for time in (log.stats.started_at, log.stats.completed_at))
    return (completed - started).total_seconds()


def missing_cells(config: AuditConfig, out: Path) -> list[tuple[str, str]]:
    """(condition, task) of every cell that was asked for and has no successful log."""
    states = cell_states(out)
    wanted = [(condition.name, name) for condition in config.conditions() for name in cell_names(config, condition)]
    return [cell for cell in wanted if cell not in states or states[cell].status != "success"]
