"""`audit run`: tasks x conditions on Inspect's `eval_set`, which resumes, retries and shows progress; one folder a condition."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from inspect_ai import Task, eval_set
from inspect_ai.log import list_eval_logs, read_eval_log
from inspect_ai.model import get_model

from audit.config import BASE, CONFIG_FILE, AuditConfig, Condition, keep_config, stored_config
from audit.logs import LOGS
from audit.running.task_files import task_function
from nla.support.errors import ConfigError, DataError
from tasks._framing import SHIPPED

if TYPE_CHECKING:  # torch is imported only where a model runs
    pass


def run_audit(config: AuditConfig, out: Path) -> None:
    """Run every cell that is not finished. The same command after an interruption goes on, and repeats no finished sample.

    Raises:
        ConfigError: unknown task, no rewrites for a framing, or the folder holds a run with other settings.
        ModelError, FetchError: the model cannot be loaded.
        DataError: a task did not finish (its log is kept, and the next run goes on with it).
    """
    makers = {name: task_function(name) for name in config.tasks}
    _check_model_name(config.model)
    conditions = config.conditions()
    # What cannot be built or loaded is refused before anything is written.
    cells = {condition.name: condition_tasks(makers, config, condition) for condition in conditions}
    config = _with_dtype(config, out)
    get_model(config.model, **config.model_args)
    keep_config(config, out)
    for condition in conditions:
        if not cells[condition.name]:
            continue
        success, logs = eval_set(
            cells[condition.name],
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


def _check_model_name(model: str) -> None:
    """Refuse a `local/` model that there is none of, before the tasks' data are fetched.

    Raises:
        ModelError: the name is no alias, path or hub id.
        FetchError: the embedded model is missing and could not be fetched.
    """
    if model.startswith("local/"):
        from nla.models.sources import resolve_source

        resolve_source(model.removeprefix("local/"))


def _with_dtype(config: AuditConfig, out: Path) -> AuditConfig:
    """The audit with its model's dtype spelled out, as the folder's first run found it: `auto` measures which one is faster, and an
    audit that goes on beside other work could find another one, whose logs must not be pooled with the first's."""
    asked = config.model_args.get("dtype", "auto")
    if not config.model.startswith("local/") or asked != "auto":
        return config
    if (out / CONFIG_FILE).is_file():
        found = stored_config(out).model_args.get("dtype", "auto")
        return config if found == "auto" else config.model_copy(update={"model_args": config.model_args | {"dtype": found}})
    from nla.kernels.compute_thread import on_compute_thread
    from nla.models.precision import resolve_device, resolve_precision

    precision = on_compute_thread(lambda: resolve_precision(asked, resolve_device(config.model_args.get("device", "auto"))))
    return config.model_copy(update={"model_args": config.model_args | {"dtype": precision.name}})


def condition_tasks(makers: dict[str, Callable[..., Task]], config: AuditConfig, condition: Condition) -> list[Task]:
    """The tasks of a condition. Rewritten prompts are only for tasks that have rewrites (deployment controls have none), and only
    on items that the base condition has too."""
    tasks = [
        _task(make, name, config, condition) for name, make in makers.items() if condition.framing is None or has_rewrites(name, config)
    ]
    if condition.framing is not None and not tasks:
        raise ConfigError(
            f"no task has rewrites for the framing {condition.framing}; make some with `audit rewrite`, and name them in `rewrites`."
        )
    if condition.framing is not None and config.limit is not None:
        for task, name in zip(tasks, (name for name in makers if has_rewrites(name, config)), strict=True):
            base = _task(makers[name], name, config, Condition(BASE))
            first = {sample.id for sample in list(base.dataset)[: config.limit]}
            task.dataset = task.dataset.filter(lambda sample, first=first: sample.id in first)  # type: ignore[misc]
    return tasks


def has_rewrites(name: str, config: AuditConfig) -> bool:
    """Whether there are rewrites for a task: named in the audit, or shipped for its bundled set."""
    bundled = config.sources.get(name, config.source) == "bundled"
    return name in config.rewrites or (bundled and (SHIPPED / f"{Path(name).stem}.jsonl").is_file())


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
        framing=condition.framing,
        rewrites=config.rewrites.get(name) if condition.framing else None,
        projected=config.projected and bool(condition.steer) and not condition.direction.startswith("random-"),
        **config.task_args.get(name, {}),
    )


def cells_done(out: Path) -> dict[tuple[str, str], tuple[str, int]]:
    """(status, finished samples) of each (condition, task) that has a log; of several, the newest."""
    found: dict[tuple[str, str], tuple[str, int]] = {}
    for folder in sorted((out / LOGS).iterdir()) if (out / LOGS).is_dir() else []:
        for info in list_eval_logs(str(folder), descending=False):
            log = read_eval_log(info, header_only=True)
            done = log.results.completed_samples if log.results else 0
            found[folder.name, log.eval.task] = (log.status, done)
    return found


def seconds_done(out: Path) -> list[tuple[float, int]]:
    """(seconds, samples) of each finished cell."""
    found = []
    for folder in sorted((out / LOGS).iterdir()) if (out / LOGS).is_dir() else []:
        for info in list_eval_logs(str(folder), descending=False):
            log = read_eval_log(info, header_only=True)
            if log.status == "success" and log.results:
                took = datetime.fromisoformat(str(log.stats.completed_at)) - datetime.fromisoformat(str(log.stats.started_at))
                found.append((took.total_seconds(), log.results.completed_samples))
    return found
