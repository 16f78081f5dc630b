"""Results of the instrument controls, as stored in `controls.json` and `audit.json`; measured by `audit.controls.measure`."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from audit.stats.auroc import Auroc
from audit.stats.rates import Estimate
from nla.support.errors import DataError

CONTROLS_FILE = "controls.json"


@dataclass(frozen=True)
class TaskControls:
    """Instrument controls measured on the base condition of one task."""

    task: str
    role: str
    prompts: Estimate
    """Share of raw prompts that the grader labels YES."""
    responses: Estimate
    """Share of raw responses that the grader labels YES when it reads them as explanations."""
    log_odds: Estimate
    """Mean log-odds (nats) of the answer Yes to the direct question."""
    log_odds_auroc: Auroc | None
    """How well these log-odds separate the task from the deployment controls."""
    words_auroc: Auroc | None
    """How well the words of the prompts alone separate the task from the deployment controls."""


@dataclass(frozen=True)
class InstrumentControls:
    """All instrument controls of an audit. `vectors`: YES rate by vector type, one explanation per transcript."""

    vectors: dict[str, Estimate]
    failed: dict[str, int]
    """Number of explanations per vector type that failed or were not graded."""
    tasks: list[TaskControls]
    made_from: str = ""
    """Digest of the logs and settings on which they were measured; if the current digest differs, the results are out of date."""


def read_controls_file(out: Path) -> InstrumentControls | None:
    """Read the instrument controls from an audit's folder; return None if they have not been run.

    Raises:
        DataError: the file cannot be read or does not have the expected form.
    """
    path = out / CONTROLS_FILE
    if not path.is_file():
        return None
    try:
        return TypeAdapter(InstrumentControls).validate_json(path.read_bytes())
    except (ValidationError, ValueError) as ex:
        raise DataError(f"{path} cannot be read: {str(ex).splitlines()[0]} Delete it and run `audit controls` again.") from ex
