"""`audit run`: tasks x conditions on Inspect's `eval_set`, which resumes, retries and shows progress; one folder a condition."""

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inspect_ai import Task, eval_set
from inspect_ai.log import list_eval_logs, read_eval_log

from audit.config import AuditConfig, Condition, keep_config
from nla.errors import ConfigError, DataError
from nla.launch import user_path

LOGS = "logs"


def run_audit(config: AuditConfig, out: Path) -> None:
    """Run every cell that is not finished. The same command after an interruption goes on, and repeats no finished sample.

    Raises:
        ConfigError: unknown task, or the folder holds a run with other settings.
        DataError: a task did not finish (its log is kept, and the next run goes on with it).
    """
    makers = [task_function(name) for name in config.tasks]
    conditions = config.conditions()
    for make, name in zip(makers, config.tasks, strict=True):
        _task(make, name, config, conditions[0])  # what cannot be built is refused before anything is written
    keep_config(config, out)
    for condition in conditions:
        success, logs = eval_set(
            [_task(make, name, config, condition) for make, name in zip(makers, config.tasks, strict=True)],
            log_dir=str(out / LOGS / condition.name),
            model=config.model,
            model_args=config.model_args | ({"steer": condition.steer} if condition.steer else {}),
            limit=config.limit,
            epochs=config.epochs,
            max_tokens=config.max_tokens,
            temperature=config.temperature,
            seed=config.seed,
            max_tasks=1,
            retry_attempts=2,
            retry_wait=1,
        )
        if not success:
            failed = [log.eval.task for log in logs if log.status != "success"]
            raise DataError(f"condition {condition.name}: {', '.join(failed)} did not finish; the same command goes on with it.")


def _task(make: Callable[..., Task], name: str, config: AuditConfig, condition: Condition) -> Task:
    return make(
        source=config.sources.get(name, config.source),
        system=condition.system,
        tokens=config.tokens,
        verbalizer=config.verbalizer,
        nla=config.nla,
        grader=config.grader,
        layer=config.layer,
        seed=config.seed,
        coherence=True,
    )


def task_function(name: str) -> Callable[..., Task]:
    """The task function of a file in `tasks/` (by name) or of any task file (by path), found under the file's own name.

    Raises:
        ConfigError: no such task.
    """
    path = user_path(name)
    module: Any
    if path.suffix == ".py" and path.is_file():
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    else:
        if not name.isidentifier() or importlib.util.find_spec(f"tasks.{name}") is None:
            raise ConfigError(f"there is no task '{name}'; known: {', '.join(task_names())}, or the path of a task file.")
        module = importlib.import_module(f"tasks.{name}")
    found = getattr(module, path.stem, None)
    if not callable(found):
        raise ConfigError(f"{name} has no function '{path.stem}'; a task file holds a @task function of its own name.")
    maker: Callable[..., Task] = found
    return maker


def task_names() -> list[str]:
    """Names of all files in `tasks/`."""
    package = importlib.import_module("tasks")
    assert package.__file__ is not None
    return sorted(path.stem for path in Path(package.__file__).parent.glob("*.py") if not path.stem.startswith("_"))


def cells_done(out: Path) -> dict[tuple[str, str], tuple[str, int]]:
    """(status, finished samples) of each (condition, task) that has a log; of several, the newest."""
    found: dict[tuple[str, str], tuple[str, int]] = {}
    for folder in sorted((out / LOGS).iterdir()) if (out / LOGS).is_dir() else []:
        for info in list_eval_logs(str(folder), descending=False):
            log = read_eval_log(info, header_only=True)
            done = log.results.completed_samples if log.results else 0
            found[folder.name, log.eval.task] = (log.status, done)
    return found
