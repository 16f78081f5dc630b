"""Responses of the steering sweep: a few items of the audit's benchmarks, answered by Inspect, and what steering costs them.

The cost of a steering is what it takes from the log-probability of the *unsteered* responses. The same tokens are read at every strength,
so that sampling adds no noise: between responses that were sampled anew, the mean log-probability of sixteen short answers differs by half
a nat per token without any steering.
"""

import tempfile
from collections.abc import Sequence
from copy import copy
from functools import partial
from typing import NamedTuple

from inspect_ai import Task, eval, task_with
from inspect_ai.log import EvalLog
from inspect_ai.model import ChatMessage

from audit.config import AuditConfig
from audit.controls.sweep_record import ReadPass, SweepItem
from audit.logs import why_failed
from graders.record import read_records
from graders.scorers.coherence import coherence
from nla.activations.likelihood import response_logprobs
from nla.activations.steering import steered
from nla.inspect.provider import local_model
from nla.models.loaded import LoadedModel
from nla.support.errors import DataError, StoppedError
from nla.support.seeds import seeded_generator
from nla.transcripts.origin import conversation_of
from nla.transcripts.tokens import Channel, Pass, TokenRef, Transcript
from nla.transcripts.transcript import build_transcript
from tasks._info import Role

ITEMS = 16
"""Items of a sweep, over all benchmarks."""


class Measured(NamedTuple):
    """One response: its coherence, and its tokens in their context."""

    mean_logprob: float
    repeated_4: float
    messages: list[ChatMessage]


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
    messages = {str(sample.id): conversation_of(log.eval.model, sample) for sample in log.samples or [] if sample.error is None}
    coherences = {str(sample.id): read_records(sample.scores).coherence for sample in log.samples or [] if sample.error is None}
    return {
        (log.eval.task, name): Measured(record.mean_logprob, record.repeated_4, messages[name])
        for name, record in coherences.items()
        if record is not None and record.mean_logprob is not None and record.repeated_4 is not None
    }


def as_item(config: AuditConfig, key: tuple[str, str], response: Measured) -> SweepItem:
    """Return an item with the tokens of its unsteered response.

    Args:
        config: the audit.
        key: the item's task and sample id.
        response: the response.

    Raises:
        ModelError, DataError: the conversation cannot be rendered as the model saw it.
    """
    transcript = build_transcript(local_model(config.model, config.model_args).tokenizer, response.messages)
    tokens = transcript.response_tokens()
    passes = [
        ReadPass(list(run.ids), [token.position for token in tokens if token.pass_index == index])
        for index, run in enumerate(transcript.passes)
    ]
    return SweepItem(*key, response.mean_logprob, response.repeated_4, [read for read in passes if read.positions])


def loss_under(config: AuditConfig, items: Sequence[SweepItem], steer: str) -> float:
    """Return how much log-probability the items' unsteered responses lose under a steering, in nats per response token.

    Raises:
        ConfigError: the direction of the steering does not exist.
    """
    model = local_model(config.model, config.model_args)
    return model.run(partial(_loss_under, model, steer, config.steer_unit, items))


def _loss_under(model: LoadedModel, steer: str, unit: str, items: Sequence[SweepItem]) -> float:
    view = steered(model, steer, unit)
    lost = 0.0
    for item in items:
        transcript, tokens = _as_transcript(item)
        lost += item.n_tokens * item.mean_logprob - sum(response_logprobs(view, transcript, tokens))
    return lost / sum(item.n_tokens for item in items)


def _as_transcript(item: SweepItem) -> tuple[Transcript, list[TokenRef]]:
    """Return an item's response as a transcript and the references to its tokens; roles and channels play no part in reading it."""
    passes = tuple(Pass(read.ids, [Channel.ANSWER] * len(read.ids), [0] * len(read.ids)) for read in item.passes)
    tokens = [
        TokenRef(index, position, 0, read.ids[position], Channel.ANSWER)
        for index, read in enumerate(item.passes)
        for position in read.positions
    ]
    return Transcript(passes, (), frozenset(), exact=True), tokens


def _stopped() -> StoppedError:
    return StoppedError("Stopped in the steering sweep. What it measured is kept; the same command goes on.")
