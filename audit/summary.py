"""One row a finished log: the numbers of a task's awareness scorers, as its metrics recorded them."""

from dataclasses import dataclass
from datetime import datetime

from inspect_ai.log import EvalLog, EvalScore

from nla.errors import DataError


@dataclass(frozen=True)
class Rate:
    """A flagged rate with its 95 % Wilson interval, the number of scored transcripts and of unscored ones."""

    estimate: float
    low: float
    high: float
    n: int
    n_unscored: int


@dataclass(frozen=True)
class TaskSummary:
    """What one task's log says about evaluation awareness."""

    task: str
    internal: Rate
    verbalized: Rate
    explanations_unscored: int
    mean_k: float
    seconds_per_transcript: float
    location: str


def summarize(log: EvalLog) -> TaskSummary:
    """The awareness numbers of a finished log.

    Raises:
        DataError: the run did not finish, or it has no awareness scores.
    """
    if log.status != "success" or log.results is None:
        cause = log.error.message if log.error else "it was interrupted"
        raise DataError(f"task {log.eval.task} did not finish ({cause}); `inspect eval-retry {log.location}` goes on with it.")
    scores = {score.scorer: score for score in log.results.scores}
    if "nla_awareness" not in scores or "verbalized_awareness" not in scores:
        raise DataError(
            f"{log.location} has no awareness scores; add them with: "
            f"inspect score {log.location} --scorer graders/nla_awareness --action append"
        )
    internal = scores["nla_awareness"]
    return TaskSummary(
        task=log.eval.task,
        internal=_rate(internal),
        verbalized=_rate(scores["verbalized_awareness"]),
        explanations_unscored=int(_metric(internal, "explanations_unscored")),
        mean_k=_metric(internal, "mean_k"),
        seconds_per_transcript=_seconds(log) / max(log.results.total_samples, 1),
        location=log.location,
    )


def _rate(score: EvalScore) -> Rate:
    estimate, low, high = (_metric(score, name) for name in ("flagged_rate", "flagged_low", "flagged_high"))
    return Rate(estimate, low, high, score.scored_samples or 0, score.unscored_samples or 0)


def _metric(score: EvalScore, name: str) -> float:
    return float(score.metrics[name].value) if name in score.metrics else float("nan")


def _seconds(log: EvalLog) -> float:
    start, end = (datetime.fromisoformat(str(at)) for at in (log.stats.started_at, log.stats.completed_at))
    return (end - start).total_seconds()
