"""A stored calibration of the contrast probes: how they read a model's deployment transcripts, so that one run can print z-scores.

`audit calibrate` writes the file from logs of deployment controls; `-T calibration=FILE` reads it. One file may hold calibrations of
several models and layers. A calibration holds for one model, layer and set of probes, and is refused for any other.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from graders.number_records import ProbeRecord
from nla.support.display import visible
from nla.support.errors import ConfigError, DataError
from nla.support.paths import user_path
from nla.support.rows import content_id

SCHEMA_VERSION = 1
Floats = npt.NDArray[np.float64]
_Number = TypeVar("_Number", float, Floats)
_MODEL_FIELDS = ("model", "revision", "adapter_digest")
_STEERING_FIELDS = ("steer", "steer_digest")


def exceeded_by(values: Floats, share: float) -> float:
    """Return the smallest of some values that at most a share of them exceed."""
    return float(np.quantile(values, 1 - share, method="inverted_cdf"))


class Scale(BaseModel):
    """How one number is distributed over deployment transcripts."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    mean: float
    sd: float = Field(gt=0)
    """Standard deviation of the sample (n - 1)."""
    above_95: float
    """The smallest score that at most 5 % of the transcripts exceed."""
    above_90: float
    """The smallest score that at most 10 % of the transcripts exceed."""
    n: int = Field(ge=2)

    @classmethod
    def of(cls, values: Floats) -> Self:
        """The scale of some deployment scores.

        Raises:
            DataError: fewer than two scores, or scores that are all the same, in which no z-score has a unit.
        """
        if len(values) < 2 or np.ptp(values) == 0:
            few = f"{len(values)} scored deployment transcripts" if len(values) < 2 else "all deployment transcripts have the same score"
            raise DataError(f"There is no z-score: {few}; expected at least two with different scores.")
        ends = {name: exceeded_by(values, share) for name, share in (("above_95", 0.05), ("above_90", 0.1))}
        return cls(mean=float(values.mean()), sd=float(values.std(ddof=1)), n=len(values), **ends)

    def z(self, score: _Number) -> _Number:
        """Return a score's distance from the deployment mean in deployment standard deviations."""
        return (score - self.mean) / self.sd


class ModelState(BaseModel):
    """The weights that were read, as far as they decide about a probe's numbers. Names as in `LoadedModel.describe`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str | None = None
    revision: str | None = None
    adapter_digest: str | None = None
    layer: int
    """K, the decoder block (0-based) whose output was read."""
    steer: str | None = None
    steer_digest: str | None = None

    @classmethod
    def of(cls, described: Mapping[str, Any], layer: int) -> Self:
        """The state of a model from its description in a log."""
        return cls(layer=layer, **{name: described.get(name) for name in (*_MODEL_FIELDS, *_STEERING_FIELDS)})

    @property
    def steering(self) -> tuple[str | None, str | None]:
        """Name with strength, and digest, of the steering vector; both None without steering."""
        return self.steer, self.steer_digest

    def differences(self, other: "ModelState") -> list[str]:
        """In what another state differs, steering left out, as `NAME MINE, not OTHER`."""
        return [
            f"{name} {_shown(getattr(self, name))}, not {_shown(getattr(other, name))}"
            for name in (*_MODEL_FIELDS, "layer")
            if getattr(self, name) != getattr(other, name)
        ]


class Calibration(BaseModel):
    """The probes' scales on deployment transcripts of one model at one layer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    state: ModelState
    contrasts: dict[str, str]
    """Digest of each probe's contrast set."""
    probes: dict[str, Scale]
    """Scale of each probe's largest projection at the response tokens."""
    composite: Scale
    """Scale of the mean z-score over the probes that are no controls."""
    controls: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    """The deployment controls behind the numbers."""

    def differences(self, contrasts: Mapping[str, str]) -> list[str]:
        """In what the contrast sets of a run differ from these."""
        return [
            f"probe {_shown(name)} {'is missing' if name not in have else 'has other pairs'} in the {where}"
            for name in sorted({*contrasts, *self.contrasts})
            for have, where in [(contrasts, "run") if name not in contrasts else (self.contrasts, "calibration")]
            if contrasts.get(name) != self.contrasts.get(name)
        ]

    @property
    def digest(self) -> str:
        """Identifier of the calibration: the first 12 hex digits of the sha256 of its content."""
        return content_id(self.model_dump(mode="json"))

    def z_scores(self, scores: Mapping[str, float]) -> dict[str, float]:
        """The z-score of each probe."""
        return {name: scale.z(scores[name]) for name, scale in self.probes.items()}

    def composites(self, z_scores: Mapping[str, float]) -> tuple[float, float | None]:
        """Mean z-score over the probes, and over the controls (None without controls)."""
        probes, controls = ([z for name, z in z_scores.items() if (name in self.controls) is wanted] for wanted in (False, True))
        return sum(probes) / len(probes), sum(controls) / len(controls) if controls else None


class CalibrationFile(BaseModel):
    """What `audit calibrate` writes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    calibrations: tuple[Calibration, ...] = Field(min_length=1)


def calibrations_of(records: Sequence[tuple[str, ProbeRecord]]) -> CalibrationFile:
    """Return the calibrations that follow from records of deployment transcripts: one for each model, layer, steering and set of probes.

    Args:
        records: (task, record) of each transcript. Unscored ones are left out.

    Raises:
        DataError: no transcript is scored, or a probe has fewer than two different scores.
    """
    groups: dict[str, list[tuple[str, ProbeRecord]]] = {}
    for task, record in records:
        if record.value is not None and record.layer is not None:
            key = content_id(ModelState.of(record.model, record.layer).model_dump(), sorted(record.contrasts.items()))
            groups.setdefault(key, []).append((task, record))
    if not groups:
        raise DataError("No deployment transcript has a score of the probes; score the logs with `-T measures=probe`, or `audit score`.")
    return CalibrationFile(calibrations=tuple(_calibration(group) for group in groups.values()))


def _calibration(group: Sequence[tuple[str, ProbeRecord]]) -> Calibration:
    record = group[0][1]
    assert record.layer is not None
    columns = {name: np.array([one.probes[name].response_max for _, one in group]) for name in record.contrasts}
    scales = {}
    for name, column in columns.items():
        try:
            scales[name] = Scale.of(column)
        except DataError as ex:
            raise DataError(f"Probe {visible(name, limit=80)}: {ex}") from None
    z_scores = [scales[name].z(column) for name, column in columns.items() if name not in record.controls]
    return Calibration(
        state=ModelState.of(record.model, record.layer),
        contrasts=record.contrasts,
        probes=scales,
        composite=Scale.of(np.mean(z_scores, axis=0)),
        controls=record.controls,
        tasks=tuple(sorted({task for task, _ in group})),
    )


def read_calibrations(name: str) -> CalibrationFile:
    """Read a file of `audit calibrate`.

    Raises:
        ConfigError: the file cannot be read.
        DataError: it is no file of calibrations, or one of a newer version.
    """
    path = user_path(name)
    try:
        content = CalibrationFile.model_validate_json(path.read_bytes())
    except OSError as ex:
        raise ConfigError(
            f"calibration={visible(name, limit=200)} cannot be read: {ex.strerror}; `audit calibrate` makes the file."
        ) from ex
    except ValidationError as ex:
        problem = ex.errors(include_url=False, include_input=False)[0]
        where = visible(".".join(map(str, problem["loc"])), limit=80)
        raise DataError(
            f"{visible(path, limit=200)} holds no calibration: {where}: {problem['msg']}. Make it with `audit calibrate LOGS -o FILE`."
        ) from None
    if content.schema_version != SCHEMA_VERSION:
        raise DataError(f"{visible(path, limit=200)} has schema version {content.schema_version}, expected {SCHEMA_VERSION}.")
    return content


def check_probes(file: CalibrationFile, contrasts: Mapping[str, str]) -> None:
    """Refuse a file in which no calibration is of a run's contrast sets.

    Raises:
        ConfigError: it names the probes that differ.
    """
    differences = [calibration.differences(contrasts) for calibration in file.calibrations]
    if all(differences):
        raise ConfigError(_refusal("another set of probes", min(differences, key=len)))


def calibration_for(file: CalibrationFile, state: ModelState, contrasts: Mapping[str, str]) -> Calibration:
    """Return the calibration for a model, layer and set of probes: with the same steering if there is one, otherwise without steering.

    A steered run is so compared with unsteered deployment transcripts.

    Raises:
        ConfigError: there is none; the message names what differs.
    """
    check_probes(file, contrasts)
    fitting = [calibration for calibration in file.calibrations if not calibration.differences(contrasts)]
    differences = [state.differences(calibration.state) for calibration in fitting]
    if all(differences):
        closest = min(differences, key=len)
        what = " and ".join(dict.fromkeys("layer" if text.startswith("layer ") else "model" for text in closest))
        raise ConfigError(_refusal(f"another {what}", closest))
    fitting = [calibration for calibration, differs in zip(fitting, differences, strict=True) if not differs]
    for wanted in (state.steering, (None, None)):
        for calibration in fitting:
            if calibration.state.steering == wanted:
                return calibration
    steered = [f"steering {_shown(state.steer)}, not {_shown(calibration.state.steer)}" for calibration in fitting[:1]]
    raise ConfigError(_refusal("steered transcripts", steered))


def _refusal(what: str, differences: Sequence[str]) -> str:
    differing = "; ".join(differences[:4])
    return f"The calibration is of {what}: {differing}. Make one for this run from its deployment logs with `audit calibrate`."


def _shown(value: object) -> str:
    return visible("none" if value is None else value, limit=80)
