"""The cells of an audit: which there are to run, which are done, and how long they took. A cell is one task under one condition."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from audit.config import AuditConfig, Condition
from audit.logs import LOGS, log_headers
from tasks._framing import SHIPPED


@dataclass(frozen=True)
class CellState:
    """The newest log of a cell."""

    status: str
    """Inspect's: started, success, cancelled or error."""
    n_samples: int
    """Finished samples."""
    seconds: float | None
    """How long the cell took; None for one that did not finish."""


def has_rewrites(name: str, config: AuditConfig) -> bool:
    """Whether a task has rewrites: named in the audit, or shipped for its bundled items."""
    bundled = config.sources.get(name, config.source) == "bundled"
    return name in config.rewrites or (bundled and (SHIPPED / f"{Path(name).stem}.jsonl").is_file())


def cell_names(config: AuditConfig, condition: Condition) -> list[str]:
    """Names of the tasks that a condition runs, as Inspect's logs name them."""
    return [Path(name).stem for name in config.tasks if condition.framing is None or has_rewrites(name, config)]


def cell_states(out: Path) -> dict[tuple[str, str], CellState]:
    """The state of each (condition, task) that has a readable log: of the newest successful log, or else of the newest log."""
    states: dict[tuple[str, str], CellState] = {}
    folders = sorted(folder for folder in (out / LOGS).iterdir() if folder.is_dir()) if (out / LOGS).is_dir() else []
    for folder in folders:
        for header in log_headers([folder]):
            log, cell = header.log, (folder.name, header.log.eval.task)
            if log.status != "success" and cell in states and states[cell].status == "success":
                continue
            seconds = None
            if log.status == "success":
                seconds = (
                    datetime.fromisoformat(str(log.stats.completed_at)) - datetime.fromisoformat(str(log.stats.started_at))
                ).total_seconds()
            states[cell] = CellState(log.status, log.results.completed_samples if log.results else 0, seconds)
    return states


def missing_cells(config: AuditConfig, out: Path) -> list[tuple[str, str]]:
    """(condition, task) of every cell that was asked for and has no successful log."""
    states = cell_states(out)
    wanted = [(condition.name, name) for condition in config.conditions() for name in cell_names(config, condition)]
    return [cell for cell in wanted if cell not in states or states[cell].status != "success"]
