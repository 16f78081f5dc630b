"""Reference texts of an agreement report: explanations of deployment transcripts, for which the correct verdict is not YES."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from inspect_ai.log import EvalLog

from audit.labelling.explanations import LoggedTranscript, logged_transcripts
from audit.logs import newest_of_cells
from nla.support.display import visible
from nla.support.errors import DataError
from tasks._info import Role


@dataclass(frozen=True)
class ReferenceText:
    """An explanation of a deployment transcript. A YES on it counts as a false positive."""

    log: str
    sample: str
    text: str
    blurb: str
    unscored: str
    """Why the log has no verdict on the explanation, which then stays unscored, since it may have failed. Empty if there is a verdict."""


@dataclass(frozen=True)
class ReferenceTranscripts:
    """The explanations of deployment transcripts, and the transcripts that have none."""

    logs: list[str]
    texts: list[ReferenceText]
    n_failed: int
    """Transcripts without explanations because their sample ended with an error."""


def read_reference_texts(paths: Sequence[Path]) -> ReferenceTranscripts:
    """Read the explanations of deployment transcripts from the `nla_awareness` scores in Inspect logs.

    Args:
        paths: logs, or folders of logs. For each cell, the newest finished log is read.

    Raises:
        DataError: a log has another role or no awareness scores, or there is no explanation.
    """
    logs: list[str] = []
    texts: list[ReferenceText] = []
    n_failed = 0
    for log in newest_of_cells(paths):
        _check_role(log)
        logs.append(log.location)
        for transcript in logged_transcripts(log):
            n_failed += bool(transcript.failed) and not transcript.explanations
            texts += _texts_of(log.location, transcript)
    if not texts:
        raise DataError(f"{', '.join(map(str, paths))} has no explanation; expected scored logs of a deployment control.")
    return ReferenceTranscripts(sorted(logs), texts, n_failed)


def _check_role(log: EvalLog) -> None:
    role = str((log.eval.metadata or {}).get("role", Role.DEPLOYMENT_CONTROL))
    if log.eval.task_args.get("system") == "evaluation":
        role = "positive control"
    if role != Role.DEPLOYMENT_CONTROL:
        raise DataError(
            f"{log.location} is task {visible(log.eval.task)} with the role {visible(role, limit=40)}; --controls takes logs of deployment "
            "traffic (tasks/wildchat.py)."
        )


def _texts_of(location: str, transcript: LoggedTranscript) -> Iterator[ReferenceText]:
    if transcript.explanations is None and not transcript.failed:
        raise DataError(
            f"{location}, sample {visible(transcript.sample, limit=80)}, has no nla_awareness score; add it with: "
            f"inspect score {location} --scorer graders/nla_awareness --action append"
        )
    for explanation in transcript.explanations or ():
        yield ReferenceText(location, transcript.sample, explanation.text, transcript.blurb, explanation.reason)
