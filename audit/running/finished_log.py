"""What `audit score` needs of one finished log: its samples, the model in the state in which it wrote them, and the samples that failed."""

from collections import Counter
from collections.abc import Mapping
from functools import wraps
from typing import Any

from inspect_ai._util.registry import registry_unqualified_name
from inspect_ai.log import EvalLog
from inspect_ai.model import Model, get_model
from inspect_ai.scorer import Score, Scorer, Target
from inspect_ai.solver import TaskState

from audit.logs import read_log
from audit.running.model_args import model_args_of
from audit.running.rescore_config import RescoreConfig
from graders.number_records import FollowUpRecord, ProbeRecord
from graders.record import AwarenessRecord, CoherenceRecord, VerbalizedRecord, read_records
from graders.score_record import ScoreRecord
from graders.scorers import scorer_name
from nla.inspect.provider import LocalAPI
from nla.inspect.weights import other_state, weights_behind
from nla.support.display import visible
from nla.support.errors import ConfigError, DataError, ModelError

ENDED_IN_ERROR = "the sample ended in an error"
_KINDS: tuple[type[ScoreRecord], ...] = (AwarenessRecord, VerbalizedRecord, CoherenceRecord, ProbeRecord, FollowUpRecord)
_RECORDS = {kind.scorer: kind for kind in _KINDS}


def prepared(location: str, config: RescoreConfig, dtype: str | None = None) -> tuple[EvalLog, Model]:
    """Read a log that is to be scored, and load the model that wrote it.

    Args:
        location: path of the log.
        config: what to measure.
        dtype: the dtype for a log that does not record its own; None measures on this machine which is faster.

    Raises:
        DataError: the log cannot be read, is unfinished, or has awareness scores already.
        ModelError: it is not known which weights wrote the log, or they cannot be loaded.
        ConfigError: the model arguments differ from those of the log, or now mean something else.
    """
    log, weights, arguments = scorable(location, config)
    if dtype is not None and arguments.get("dtype", "auto") == "auto":
        arguments |= {"dtype": dtype}
    model = get_model(f"local/{weights.removeprefix('local/')}", **arguments)
    _check_state(log, model)
    return log, model


def scorable(location: str, config: RescoreConfig) -> tuple[EvalLog, str, dict[str, Any]]:
    """Read a log that is to be scored, and return it with the name and the arguments of the model that wrote it. Nothing is loaded.

    Raises:
        DataError: the log cannot be read, is unfinished, or has awareness scores already.
        ModelError: it is not known which weights wrote the log.
        ConfigError: the model arguments differ from those of the log.
    """
    log = _checked(location, config)
    weights = config.model or weights_behind(log.eval.model)
    if weights is None:
        raise ModelError(f"{log.location} was written by {log.eval.model}, which does not say what open weights wrote it; give --model.")
    if config.limit is not None and log.samples is not None:
        log = log.model_copy(update={"samples": log.samples[: config.limit]})
    return log, weights, model_args_of(log, config.model_args)


def _checked(location: str, config: RescoreConfig) -> EvalLog:
    log = read_log(location)
    if log.status != "success" or not log.samples:
        raise DataError(f"{location}: no finished log (status {log.status}); run `inspect eval-retry` to finish it.")
    names = {scorer_name(measure) for measure in config.measures}
    if there := sorted({name for sample in log.samples for name in names & (sample.scores or {}).keys()}):
        raise DataError(
            f"{location} has awareness scores already ({', '.join(there)}); score the log from which it was made, use its scores, or "
            "name the measures that it lacks (--measures)."
        )
    return log


def _check_state(log: EvalLog, model: Model) -> None:
    """Refuse a model in another state than the one that the log's replies record, e.g. with an adapter that was trained again."""
    assert isinstance(model.api, LocalAPI)
    for sample in log.samples or []:
        recorded: Mapping[str, Any] = sample.output.metadata or {}
        if differing := other_state(recorded, model.api.model):
            raise ConfigError(
                f"{log.location} was written by the model in another state ({', '.join(differing)}); give --model and --model-args "
                "that name the model as it was."
            )


def unscored_transcripts(log: EvalLog) -> str:
    """Return a sentence that counts the transcripts of a scored log without an internal verdict, by reason; empty if all have one."""
    records = [read_records(sample.scores).awareness for sample in log.samples or []]
    reasons = Counter(record.reason for record in records if record is not None and record.flagged is None)
    counted = "; ".join(f"{reason} ({n})" for reason, n in reasons.most_common())
    return f"{reasons.total()} of {len(records)} transcripts are unscored: {counted}." if reasons else ""


def for_finished_samples(scorer: Scorer, log: EvalLog) -> Scorer:
    """Return a scorer that leaves the log's samples that ended in an error unscored, with the error as the reason.

    What such a sample holds is a fragment, so it is not pooled with finished transcripts.
    """
    errors = {(sample.id, sample.epoch): sample.error.message for sample in log.samples or [] if sample.error is not None}
    kind = _RECORDS.get(registry_unqualified_name(scorer))

    @wraps(scorer)  # keeps the scorer's name, parameters and metrics, which Inspect stores on the function
    async def score(state: TaskState, target: Target) -> Score | None:
        error = errors.get((state.sample_id, state.epoch))
        if error is None:
            return await scorer(state, target)
        if kind is None:
            return Score.unscored(reason=ENDED_IN_ERROR, explanation=visible(error, limit=300))
        return kind(reason=ENDED_IN_ERROR, note=visible(error, limit=300)).to_score()

    return score
