"""The steering sweep of an audit: how much steering degrades the model's responses at several strengths, and what was chosen from it.

`audit.running.sweep` measures it; the record lies in the audit's folder as `steering_sweep.json` and is copied into `audit.json`.
"""

from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from nla.support.errors import DataError, first_line
from nla.support.files import replacing

SWEEP_FILE = "steering_sweep.json"


@dataclass(frozen=True)
class ReadPass:
    """A token sequence of a transcript, and which of its tokens belong to the response."""

    ids: list[int]
    positions: list[int]


@dataclass(frozen=True)
class SweepItem:
    """One item of the sweep, and the unsteered response to it under the unsteered model."""

    task: str
    sample_id: str
    mean_logprob: float
    """Mean log-probability per response token (nats)."""
    repeated_4: float
    """Share of the response's 4-grams that had occurred before."""
    passes: list[ReadPass] = field(default_factory=list)
    """The response with its context as tokens; empty in records of the first version."""

    @property
    def n_tokens(self) -> int:
        """Number of response tokens."""
        return sum(len(read.positions) for read in self.passes)


@dataclass(frozen=True)
class SweepPoint:
    """The degradation at one strength of one direction, over the sweep's items."""

    direction: str
    strength: float
    n: int
    """Items that were measured."""
    loss: float
    """Log-probability that the unsteered responses lose under steering, per response token (nats)."""
    repeated: float | None = None
    """Mean increase of the share of repeated 4-grams in steered responses; None where none were generated."""


@dataclass(frozen=True)
class Matching:
    """The strength at which an unrelated contrast degrades responses as much as the steering vector does."""

    contrast: str
    to: float
    """Strength of the steering vector."""
    loss: float
    """Degradation of the steering vector at that strength (nats per token)."""
    strength: float | None
    """None where no strength matches."""
    reason: str = ""
    """Why no strength matches."""


@dataclass(frozen=True)
class SteeringSweep:
    """All that a sweep measured, and its choice."""

    settings: dict[str, str]
    """What the measurements depend on; a sweep is continued only under equal settings."""
    unit: str
    """Unit of the strengths (`nla.instrument.STEER_UNITS`)."""
    max_tokens: int
    """Longest response, in tokens."""
    items: list[SweepItem]
    points: list[SweepPoint] = field(default_factory=list)
    bound: float | None = None
    """Largest loss that the choice accepts (nats per token); None where the strengths were given."""
    chosen: float | None = None
    """The strength that `--steer auto` stands for."""
    matchings: list[Matching] = field(default_factory=list)

    def at(self, direction: str, strength: float) -> SweepPoint | None:
        """Return what was measured at a strength of a direction, if it was."""
        return next((point for point in self.points if (point.direction, point.strength) == (direction, strength)), None)


def read_sweep(out: Path) -> SteeringSweep | None:
    """Read the sweep in an audit's folder; None if there is none.

    Raises:
        DataError: the file is damaged.
    """
    path = out / SWEEP_FILE
    if not path.is_file():
        return None
    try:
        return TypeAdapter(SteeringSweep).validate_json(path.read_bytes())
    except (OSError, ValidationError, ValueError) as ex:
        raise DataError(f"{path} cannot be read as a steering sweep ({first_line(ex)}); delete it, and the sweep is made again.") from ex


def write_sweep(sweep: SteeringSweep, out: Path) -> None:
    """Write a sweep into an audit's folder, replacing the earlier state of it."""
    with replacing(out / SWEEP_FILE) as scratch:
        scratch.write_bytes(TypeAdapter(SteeringSweep).dump_json(sweep, indent=1) + b"\n")
