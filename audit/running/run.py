"""`audit run`: run every task under every condition with Inspect's `eval_set`, which resumes, retries and shows progress.

A cell is one task under one condition. Each condition has its own folder of logs. A run is complete only if every cell has a successful
log.
"""

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from inspect_ai import Task, eval_set
from inspect_ai.log import EvalLog
from inspect_ai.model import get_model

from audit.cells import cell_names, is_run, task_states
from audit.config import BASE, CONFIG_FILE, AuditConfig, Condition, check_kept, is_control_direction, keep_config, stored_config
from audit.logs import LOGS, Warn, set_unreadable_aside, warn_on_stderr, why_failed
from audit.running.progress import RunProgress
from audit.running.sweep import with_strengths
from audit.task_files import measured_task
from graders.scorers.calibrated import check_calibration
from nla.organisms.stored_check import read_check
from nla.support.errors import ConfigError, DataError, StoppedError
from nla.support.locks import exclusive_lock
from nla.support.paths import user_path


def run_audit(
    config: AuditConfig,
    out: Path,
    warn: Warn = warn_on_stderr,
    say: Callable[[str], None] = lambda _: None,
    progress: RunProgress | None = None,
) -> None:
    """Run all unfinished cells. After an interruption, the same call resumes the audit without repeating finished samples.

    Args:
        config: what to run.
        out: the audit's folder, which is created if it does not exist.
        warn: called with a sentence for each log that cannot be read and whose cell is run again.
        say: called with a line about the strengths that a steering sweep chose.
        progress: shows the transcripts done; None leaves the display to Inspect.

    Raises:
        ConfigError: a task is unknown, a framing has no rewrites, the folder holds a run with other settings, another process runs an
            audit in the folder, the calibration is of another model, layer or set of probes, or `--steer auto` finds no strength (see
            `audit.running.sweep`).
        ModelError, FetchError: the model cannot be loaded.
        DataError: the file of known groups cannot be read, a task did not finish (its log is kept, and the next run resumes it), or the
            folder cannot be written to.
        StoppedError: the user stopped the run (Ctrl-C).
    """
    makers = {name: measured_task(name) for name in config.tasks}
    _check_model_name(config.model)
    if config.known_groups is not None:  # which is used only after everything has run
        read_check(user_path(config.known_groups))
    # All tasks are built and the model is loaded before anything is written, so that errors leave no folder behind.
    cells = {condition.name: condition_tasks(makers, config, condition) for condition in config.conditions()}
    config = _with_dtype(config, out)
    check_calibration(config.instrument, get_model(config.model, **config.model_args))
    with exclusive_lock(out, "audit run", folder=True):
        if (out / CONFIG_FILE).is_file():
            check_kept(config, out)
        else:  # keeps the dtype, which a sweep that is killed must not choose again
            keep_config(config.model_copy(update={"steer": ()}), out)
        config = with_strengths(config, cells[BASE], out, say)
        keep_config(config, out)
        conditions = config.conditions()
        pending = [(condition, cells.get(condition.name) or condition_tasks(makers, config, condition)) for condition in conditions]
        _run_conditions(config, [(condition, tasks) for condition, tasks in pending if tasks], out, warn, progress)


def _run_conditions(
    config: AuditConfig, pending: list[tuple[Condition, list[Task]]], out: Path, warn: Warn, progress: RunProgress | None
) -> None:
    if progress is None:
        for condition, tasks in pending:
            _run_condition(config, condition, tasks, out, warn)
        return
    progress.expect(sum(_n_transcripts(config, tasks) for _, tasks in pending))
    with progress:
        for condition, tasks in pending:
            with progress.condition(condition.name, tasks, _n_transcripts(config, tasks)):
                _run_condition(config, condition, tasks, out, warn, quiet=True)


def _n_transcripts(config: AuditConfig, tasks: list[Task]) -> int:
    """Return the number of transcripts of a condition."""
    sizes = [len(task.dataset) for task in tasks]
    return config.epochs * sum(size if config.limit is None else min(size, config.limit) for size in sizes)


def _run_condition(config: AuditConfig, condition: Condition, tasks: list[Task], out: Path, warn: Warn, *, quiet: bool = False) -> None:
    folder = out / LOGS / condition.name
    set_unreadable_aside(folder, warn)  # eval_set would fail on unreadable logs
    try:
        with _interrupts() as interrupted:
            success, logs = eval_set(
                tasks,
                log_dir=str(folder),
                model=config.model,
                model_args=config.model_args | ({"steer": condition.steer, "steer_unit": config.steer_unit} if condition.steer else {}),
                limit=config.limit,
                epochs=config.epochs,
                max_tokens=config.max_tokens,
                temperature=config.temperature,
                seed=config.seed,
                max_tasks=len(tasks),  # the model batches what all of them ask for
                retry_attempts=2,
                retry_wait=1,
                display="none" if quiet else None,
            )
            if interrupted():
                raise _stopped(condition)
    except KeyboardInterrupt:
        raise _stopped(condition) from None
    _check_complete(condition, cell_names(config, condition), folder, success, logs)


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether Ctrl-C was pressed since. The signal's handler stays as it is.

    asyncio turns Ctrl-C into the cancellation of one coroutine, and libraries may swallow it: then the condition runs to its end.
    """
    receiver, sender = socket.socketpair()
    with receiver, sender:
        receiver.setblocking(False)
        sender.setblocking(False)
        try:
            previous = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
        except ValueError:  # only the main thread of the main interpreter receives signals
            yield lambda: False
            return

        def pressed() -> bool:
            try:
                return signal.SIGINT in receiver.recv(4_096)
            except BlockingIOError:
                return False

        try:
            yield pressed
        finally:
            signal.set_wakeup_fd(previous)


def _check_complete(condition: Condition, names: list[str], folder: Path, success: bool, logs: list[EvalLog]) -> None:
    """Refuse to continue unless every task of the condition has a successful log: after Ctrl-C `eval_set` may report a success too."""
    states = task_states(folder)
    missing = {name: states[name].status if name in states else "not started" for name in names}
    missing = {name: status for name, status in missing.items() if status != "success"}
    if "cancelled" in missing.values() or any(log.status == "cancelled" for log in logs):
        raise _stopped(condition)
    if missing or not success:
        failed = list(missing) or [log.eval.task for log in logs if log.status != "success"]
        broken = next((log for log in logs if log.error is not None), None)
        reason = f" ({why_failed(broken)})" if broken else ""
        raise DataError(f"Condition {condition.name}: {', '.join(failed)} did not finish{reason}; the same command resumes it.")


def _stopped(condition: Condition) -> StoppedError:
    return StoppedError(f"Stopped in condition {condition.name}. Finished samples are kept; the same command resumes the audit.")


def _check_model_name(model: str) -> None:
    """Check that a `local/` model exists, before the tasks' data are fetched.

    Raises:
        ModelError: the name is not an alias, path or hub id.
        FetchError: the embedded model is missing and could not be fetched.
    """
    if model.startswith("local/"):
        from nla.models.sources import resolve_source

        resolve_source(model.removeprefix("local/"))


def _with_dtype(config: AuditConfig, out: Path) -> AuditConfig:
    """Return the audit with the dtype `auto` replaced by the one that the folder's first run chose.

    `auto` measures which dtype is faster. When an audit resumes while the machine is busy, the measurement could give another dtype, and
    transcripts of different dtypes must not be pooled.
    """
    requested = config.model_args.get("dtype", "auto")
    if not config.model.startswith("local/") or requested != "auto":
        return config
    if (out / CONFIG_FILE).is_file():
        before = stored_config(out).model_args.get("dtype", "auto")
        return config if before == "auto" else config.model_copy(update={"model_args": config.model_args | {"dtype": before}})
    from nla.kernels.compute_thread import on_compute_thread
    from nla.models.precision import resolve_device, resolve_precision

    precision = on_compute_thread(lambda: resolve_precision(requested, resolve_device(config.model_args.get("device", "auto"))))
    return config.model_copy(update={"model_args": config.model_args | {"dtype": precision.name}})


def condition_tasks(makers: dict[str, Callable[..., Task]], config: AuditConfig, condition: Condition) -> list[Task]:
    """Build the tasks of a condition; one whose strength a sweep is yet to choose has the same tasks under every strength.

    `audit.cells.is_run` says which tasks a condition includes. One with a framing includes only items that are also in the base condition.

    Raises:
        ConfigError: the condition has a framing for which no task has rewrites.
    """
    names = [name for name in makers if is_run(name, config, condition)]
    tasks = [_task(makers[name], name, config, condition) for name in names]
    if condition.framing is not None and not tasks:
        raise ConfigError(
            f"No task has rewrites for the framing {condition.framing}; make some with `audit rewrite`, and name them in `rewrites`."
        )
    if condition.framing is not None and config.limit is not None:
        for task, name in zip(tasks, names, strict=True):
            base = _task(makers[name], name, config, Condition(BASE))
            first = {sample.id for sample in list(base.dataset)[: config.limit]}
            task.dataset = task.dataset.filter(lambda sample, first=first: sample.id in first)  # type: ignore[misc]
    return tasks


def _task(make: Callable[..., Task], name: str, config: AuditConfig, condition: Condition) -> Task:
    steered_on_purpose = bool(condition.steer) and not is_control_direction(condition.direction)
    source = config.sources.get(name, config.source)
    return make(
        **config.instrument.parameters(),
        **({} if source is None else {"source": source}),
        system=condition.system,
        coherence=True,
        framing=condition.framing,
        rewrites=config.rewrites.get(name) if condition.framing else None,
        projected=config.projected and steered_on_purpose,
        **({} if condition.measured else {"awareness": False}),
        **config.task_args.get(name, {}),
    )
