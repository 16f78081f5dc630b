"""Read explanations from scored Inspect logs, with their positions and the grader's verdicts, for labelling and the agreement report."""

from collections.abc import Iterator
from dataclasses import dataclass

from inspect_ai.log import EvalLog

from graders.base import Verdict
from graders.record import AWARENESS, TokenRecord, read_records
from nla.support.errors import DataError


@dataclass(frozen=True)
class LoggedExplanation:
    """One explanation of a logged transcript."""

    text: str
    position: int
    """Index of the token within the transcript."""
    verdict: Verdict | None
    """The grader's verdict; None if there is none."""
    reason: str
    """Why there is no verdict; empty if there is a verdict."""


@dataclass(frozen=True)
class LoggedTranscript:
    """The explanations of one transcript in a log."""

    sample: str
    """Sample id and epoch, as text for people."""
    blurb: str
    """The task's description of the evaluation; empty if it has none."""
    failed: str
    """The error with which the sample ended, so that the transcript could not be scored; empty if there was none."""
    explanations: tuple[LoggedExplanation, ...] | None
    """The explanations; None if the sample has no awareness score."""


def logged_transcripts(log: EvalLog) -> Iterator[LoggedTranscript]:
    """Yield the transcripts of a log with their explanations.

    Raises:
        DataError: an awareness score cannot be read.
    """
    blurb = str((log.eval.metadata or {}).get("blurb") or "")
    for sample in log.samples or []:
        name = f"{sample.id}, epoch {sample.epoch}"
        try:
            scores = {key: score for key, score in (sample.scores or {}).items() if key.startswith(AWARENESS)}
            record = read_records(scores).awareness
        except DataError as ex:
            raise DataError(f"{log.location}, sample {name}: {ex}") from None
        failed = f"the sample ended with an error: {sample.error.message}" if sample.error else ""
        explanations = None if record is None else tuple(map(_explanation, record.tokens))
        yield LoggedTranscript(name, blurb, failed, explanations)


def _explanation(token: TokenRecord) -> LoggedExplanation:
    return LoggedExplanation(token.explanation, token.position, token.verdict, "" if token.verdict else token.reason or "no reason given")
