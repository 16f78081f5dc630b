"""`audit merge`: join the parts that shards have scored into the logs that one process would have written.

Each transcript is taken from its part as it is, with its scores and events. The metrics over all transcripts are computed by Inspect from
these scores, as `audit score` has them computed.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path

from inspect_ai import score
from inspect_ai._util.registry import registry_unqualified_name
from inspect_ai.log import EvalLog, EvalSample
from inspect_ai.model import get_model
from inspect_ai.scorer import Score, Scorer, Target
from inspect_ai.solver import TaskState

from audit.logs import Warn, set_unreadable_aside, warn_on_stderr
from audit.running.finished_log import unscored_transcripts
from audit.running.rescore import scorers_of, write_log
from audit.running.rescore_config import RescoreConfig, make_rescore
from audit.running.shard_worker import read_part
from audit.running.shards import Part, PlannedLog, ShardPlan, read_plan
from nla.support.errors import DataError
from nla.support.locks import exclusive_lock

_SHOWN = 12
"""Numbers of shards that a message lists."""
_Key = tuple[int | str, int]
"""Sample id and epoch."""


def merge_shards(out: Path, say: Callable[[str], None] = lambda _: None, warn: Warn = warn_on_stderr) -> list[Path]:
    """Write the logs of which every transcript is scored, and return their paths. Those that are already there stay as they are.

    Args:
        out: the output folder of `audit score LOGS -o OUT --shard I/N`.
        say: called with the number of a log's transcripts that stayed unscored, by reason.
        warn: called with a sentence for each log that could not be scored.

    Raises:
        ConfigError: the folder holds no shards, or another process writes to it.
        DataError: transcripts are not scored yet, or a part cannot be read. The logs that are complete are written before this is raised.
    """
    plan = read_plan(out)
    config = make_rescore({name: value for name, value in plan.settings.items() if name in RescoreConfig.model_fields})
    parts = [part for number in range(1, plan.shards + 1) for part in plan.parts(number)]
    lacking: list[Part] = []
    with exclusive_lock(out, "audit merge", folder=True):
        set_unreadable_aside(out, warn)
        for log in plan.logs:
            if log.why_not:
                warn(f"{log.why_not} This log is left out.")
                continue
            mine = [part for part in parts if part.log.log_id == log.log_id]
            missing = [part for part in mine if not part.path(out).is_file()]
            lacking += missing
            if missing or (out / log.name).exists():
                continue
            merged = _merged(log, [read_part(part, out) for part in mine], config)
            write_log(merged, out / log.name)
            if unscored := unscored_transcripts(merged):
                say(unscored)
    if lacking:
        raise _incomplete(plan, out, lacking)
    return [out / log.name for log in plan.logs if not log.why_not]


def _incomplete(plan: ShardPlan, out: Path, lacking: Sequence[Part]) -> DataError:
    numbers = sorted({part.shard.number for part in lacking})
    shown = ", ".join(map(str, numbers[:_SHOWN])) + (f" and {len(numbers) - _SHOWN} more" if len(numbers) > _SHOWN else "")
    logs = len({part.log.log_id for part in lacking})
    n = sum(part.stop - part.start for part in lacking)
    return DataError(
        f"{out} lacks {n} transcripts of {logs} of {len(plan.logs)} logs, which belong to the shards {shown} of {plan.shards}. "
        f"Give their `audit score` commands again (--shard {numbers[0]}/{plan.shards}), then this one."
    )


def _merged(log: PlannedLog, pieces: Sequence[EvalLog], config: RescoreConfig) -> EvalLog:
    """Return one log with the samples of all pieces, in order, and with the metrics of all."""
    samples = [sample for piece in pieces for sample in piece.samples or []]
    keys = {(sample.id, sample.epoch) for sample in samples}
    if len(samples) != log.transcripts or len(keys) != len(samples):
        raise DataError(
            f"The shards hold {len(samples)} transcripts of {log.name}, {len(keys)} of them different; expected {log.transcripts}."
        )
    whole = pieces[0].model_copy(update={"samples": samples})
    with_metrics = _with_metrics(whole, config)
    return with_metrics.model_copy(update={"samples": samples, "location": ""})


def _with_metrics(log: EvalLog, config: RescoreConfig) -> EvalLog:
    """Return a log with the metrics of the scores in its samples. No sample is kept whole: their scores and metadata are enough for it."""
    scores = {(sample.id, sample.epoch): sample.scores or {} for sample in log.samples or []}
    scorers = [_repeating(scorer, scores) for scorer in scorers_of(log, config)]
    roles = log.eval.model_roles
    bare = log.model_copy(
        update={
            "samples": [_bare(sample, {registry_unqualified_name(scorer) for scorer in scorers}) for sample in log.samples or []],
            "eval": log.eval.model_copy(update={"model_roles": None}),  # graders have graded: their models need not be reachable here
        }
    )
    rescored = score(bare, scorers, model=get_model("none/none"), action="append", display="none")
    return rescored.model_copy(update={"eval": rescored.eval.model_copy(update={"model_roles": roles})})


def _bare(sample: EvalSample, new: set[str]) -> EvalSample:
    """Return a sample without what metrics do not look at, and without the scores that are to be added."""
    earlier = {name: kept for name, kept in (sample.scores or {}).items() if name not in new}
    return sample.model_copy(update={"messages": [], "events": [], "attachments": {}, "timelines": None, "scores": earlier})


def _repeating(scorer: Scorer, scores: Mapping[_Key, Mapping[str, Score]]) -> Scorer:
    """Return a scorer that gives each sample the score that the scorer gave it in its shard."""
    name = registry_unqualified_name(scorer)

    @wraps(scorer)  # keeps the scorer's name, parameters and metrics, which Inspect stores on the function
    async def repeat(state: TaskState, target: Target) -> Score | None:
        return scores[state.sample_id, state.epoch].get(name)

    return repeat
