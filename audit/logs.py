"""The Inspect logs in an audit's folder: where they are, and which of them count."""

from pathlib import Path

from inspect_ai.log import EvalLog, list_eval_logs, read_eval_log

from audit.config import BASE

LOGS = "logs"

CONTROL_ROLE = "deployment control"


def newest_finished(folder: Path) -> list[EvalLog]:
    """The newest successful log of each task in a folder, by task name."""
    newest: dict[str, EvalLog] = {}
    for info in list_eval_logs(str(folder), descending=False) if folder.is_dir() else []:
        log = read_eval_log(info)
        if log.status == "success":
            newest[log.eval.task] = log
    return [newest[name] for name in sorted(newest)]


def base_logs(out: Path) -> list[EvalLog]:
    """The finished logs of an audit's base condition, the newest of each task."""
    return newest_finished(out / LOGS / BASE)
