"""Responses of the steering sweep: a few items of the audit's benchmarks, answered by Inspect under steering and read by `coherence`."""

import tempfile
from collections.abc import Sequence
from copy import copy
from typing import NamedTuple

from inspect_ai import Task, eval, task_with
from inspect_ai.log import EvalLog

from audit.config import AuditConfig
from audit.logs import why_failed
from graders.record import read_records
from graders.scorers.coherence import coherence
from nla.support.errors import DataError, StoppedError
from nla.support.seeds import seeded_generator
from tasks._info import Role

ITEMS = 16
"""Items of a sweep, over all benchmarks: at temperature 1 and 64 tokens, the loss then has a standard error of about 0.1 nats per token."""


class Measured(NamedTuple):
    """Coherence of one response."""

    mean_logprob: float
    repeated_4: float


def sweep_items(tasks: Sequence[Task], config: AuditConfig) -> list[tuple[str, str]]:
    """Return (task, sample id) of the sweep's items, drawn from those that the audit runs; deployment controls have none.

    A task counts as a benchmark unless its metadata say that it is a deployment control.
    """
    benchmarks = [task for task in tasks if (task.metadata or {}).get("role") != Role.DEPLOYMENT_CONTROL]
    pool = [(task.name, str(sample.id)) for task in benchmarks for sample in list(task.dataset)[: config.limit] if sample.id is not None]
    order = seeded_generator("steering sweep", config.seed).permutation(len(pool))
    return [pool[i] for i in sorted(order[:ITEMS].tolist())]


def responses(
    config: AuditConfig, tasks: Sequence[Task], items: Sequence[tuple[str, str]], steer: str | None, max_tokens: int
) -> dict[tuple[str, str], Measured]:
    """Answer the items under a steering (None for none), and return the coherence of each response that could be measured.

    Nothing is left on disk. The task's own scorers do not run.

    Raises:
        DataError: Inspect could not run the items.
        StoppedError: the user stopped the run.
    """
    names = {name for name, _ in items}
    chosen = [_part(task, {sample for name, sample in items if name == task.name}) for task in tasks if task.name in names]
    with tempfile.TemporaryDirectory(prefix="steering-sweep-") as folder:
        try:
            logs = eval(
                chosen,
                model=config.model,
                model_args=config.model_args | ({"steer": steer, "steer_unit": config.steer_unit} if steer else {}),
                max_tokens=max_tokens,
                temperature=config.temperature,
                seed=config.seed,
                log_dir=folder,
                display="none",
                max_tasks=1,
            )
        except KeyboardInterrupt:
            raise _stopped() from None
        return {key: measured for log in logs for key, measured in _measured(log).items()}


def _part(task: Task, sample_ids: set[str]) -> Task:
    """Return a copy of a task with some of its samples and `coherence` as its only scorer."""
    return task_with(copy(task), dataset=task.dataset.filter(lambda sample: str(sample.id) in sample_ids), scorer=coherence())


def _measured(log: EvalLog) -> dict[tuple[str, str], Measured]:
    if log.status == "cancelled":
        raise _stopped()
    if log.status != "success":
        raise DataError(f"The steering sweep could not run {log.eval.task}: {why_failed(log)}. Run the task alone to see why.")
    coherences = {str(sample.id): read_records(sample.scores).coherence for sample in log.samples or [] if sample.error is None}
    return {
        (log.eval.task, name): Measured(record.mean_logprob, record.repeated_4)
        for name, record in coherences.items()
        if record is not None and record.mean_logprob is not None and record.repeated_4 is not None
    }


def _stopped() -> StoppedError:
    return StoppedError("Stopped in the steering sweep. What it measured is kept; the same command goes on.")
