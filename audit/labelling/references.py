"""What an agreement is measured against besides labels: explanations of deployment transcripts, and the records of earlier runs."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from inspect_ai.log import EvalLog, list_eval_logs, read_eval_log
from pydantic import BaseModel, Field

from audit.logs import CONTROL_ROLE
from graders.base import Verdict
from nla.support.errors import DataError


@dataclass(frozen=True)
class ControlText:
    """An explanation of a deployment transcript: no text of evaluation awareness, whatever a grader says."""

    log: str
    sample: str
    text: str
    blurb: str
    unscored: str
    """Why the log has no verdict on it (it stays unscored, as the explanation itself may be the failure); empty for a scored one."""


def read_controls(paths: tuple[Path, ...]) -> list[ControlText]:
    """Explanations of the deployment transcripts in Inspect logs, from the `nla_awareness` score of each sample.

    Args:
        paths: logs, or folders of logs.

    Raises:
        DataError: something is no log, has no awareness scores, or says of itself that it is another condition.
    """
    texts = [text for path in paths for log in read_logs(path) for text in _control_texts(log)]
    if not texts:
        raise DataError(f"{', '.join(map(str, paths))} has no explanation; expected logs of a deployment control that was scored.")
    return texts


def read_logs(path: Path) -> Iterator[EvalLog]:
    """The Inspect logs of a file or folder, the oldest first.

    Raises:
        DataError: it is no log.
    """
    try:
        if not path.is_dir():
            yield read_eval_log(str(path))
            return
        for info in list_eval_logs(str(path), descending=False):
            yield read_eval_log(info)
    except (OSError, ValueError) as ex:  # pydantic's errors are ValueErrors
        first = str(ex).split("\n", maxsplit=1)[0]
        raise DataError(f"{path} cannot be read as an Inspect log ({first}); give a .eval or .json log, or a folder of them.") from None


def _control_texts(log: EvalLog) -> Iterator[ControlText]:
    about = log.eval.metadata or {}
    role = about.get("role", CONTROL_ROLE)
    if log.eval.task_args.get("system") == "evaluation":
        role = "positive control"
    if role != CONTROL_ROLE:
        raise DataError(f"{log.location} is task {log.eval.task}, a {role}; --controls takes deployment traffic (tasks/wildchat.py).")
    for sample in log.samples or []:
        score = (sample.scores or {}).get("nla_awareness")
        if score is None:
            raise DataError(
                f"{log.location}, sample {sample.id}, has no nla_awareness score; add it with: "
                f"inspect score {log.location} --scorer graders/nla_awareness --action append"
            )
        for row in (score.metadata or {}).get("tokens", []):
            unscored = "" if row["verdict"] else row["reason"] or "no reason given"
            yield ControlText(log.location, f"{sample.id}, epoch {sample.epoch}", row["explanation"], about.get("blurb", ""), unscored)


class EarlierItem(BaseModel):
    """A grader's verdict on a text, as an earlier record has it."""

    id: str
    text: str
    verdict: Verdict | None


class _EarlierConfig(BaseModel):
    grader: str


class Earlier(BaseModel):
    """What is read of the record of an earlier `audit agreement --json`."""

    config: _EarlierConfig
    items: list[EarlierItem] = Field(min_length=1)


def read_earlier(path: Path) -> Earlier:
    """Read an earlier record.

    Raises:
        DataError: the file is missing or is no such record.
    """
    try:
        return Earlier.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as ex:
        first = "; ".join(str(ex).splitlines()[:3])
        raise DataError(f"{path} is no record to compare with ({first}); write one with: audit agreement LABELS --json {path}") from None
