"""What the controls of the instrument found, as it stands in `controls.json` and `audit.json`; made by `audit.controls`."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from audit.stats.auroc import Auroc
from audit.stats.rates import Estimate
from nla.support.errors import DataError

CONTROLS_FILE = "controls.json"


@dataclass(frozen=True)
class TaskControls:
    """The controls of one task's base condition."""

    task: str
    role: str
    prompts: Estimate
    """Share of raw prompts that the grader calls YES."""
    responses: Estimate
    """Share of raw responses that it calls YES as if they were explanations."""
    log_odds: Estimate
    """Mean log-odds (nats) of Yes to the direct question."""
    log_odds_auroc: Auroc | None
    words_auroc: Auroc | None
    """Of the prompts' bag of words."""


@dataclass(frozen=True)
class InstrumentControls:
    """`vectors` are rates of YES an explanation, one a transcript, by kind of vector."""

    vectors: dict[str, Estimate]
    failed: dict[str, int]
    """Explanations of each kind that failed, or were not graded."""
    tasks: list[TaskControls]
    made_from: str = ""
    """Digest of the logs and settings they were measured on; what has another one is out of date."""


def read_controls_file(out: Path) -> InstrumentControls | None:
    """The controls of an audit's folder; None where they have not been run.

    Raises:
        DataError: the file is not of its form.
    """
    path = out / CONTROLS_FILE
    if not path.is_file():
        return None
    try:
        return TypeAdapter(InstrumentControls).validate_json(path.read_bytes())
    except (ValidationError, ValueError) as ex:
        raise DataError(f"{path} cannot be read: {str(ex).splitlines()[0]} Delete it and run `audit controls` again.") from ex
