"""z-scores of the contrast probes from a stored calibration, and its refusal before anything is generated where it does not fit."""

from collections.abc import Mapping
from typing import Any

from inspect_ai.model import Model
from inspect_ai.model._model import active_model

from graders.calibration import CalibrationFile, ModelState, calibration_for, check_probes, read_calibrations
from graders.number_records import ProbeRecord
from nla.activations.contrast_sets import read_probes
from nla.instrument import Instrument


def at_the_door(
    instrument: Instrument, contrasts: Mapping[str, str], name: str | None = None, active: Model | None = None
) -> CalibrationFile | None:
    """Return the calibrations that an instrument names, None where it names none, after comparing them with the run.

    Probes are compared always; model and layer only if they are known already: Inspect's active model is of the `local/` provider and no
    other weights are named. Otherwise they are compared when the first transcript is scored.

    Args:
        instrument: the settings.
        contrasts: digest of each contrast set.
        name: weights that the user named.
        active: the model to compare with; None takes Inspect's active model.

    Raises:
        ConfigError: the file cannot be read, or is of another model, layer or set of probes.
        DataError: it is no file of calibrations.
    """
    if instrument.calibration is None:
        return None
    file = read_calibrations(instrument.calibration)
    check_probes(file, contrasts)
    active = active or active_model()
    if name is None and active is not None:
        from nla.inspect.provider import LocalAPI
        from nla.verbalizers import layer_of

        if isinstance(active.api, LocalAPI):
            weights = active.api.model
            calibration_for(file, ModelState.of(weights.describe(), layer_of(instrument, weights.base)), contrasts)
    return file


def check_calibration(instrument: Instrument, active: Model) -> None:
    """Refuse an instrument's calibration if it is not of a model; nothing happens without a calibration or without the measure `probe`.

    Raises:
        ConfigError, DataError: see `at_the_door`.
    """
    if instrument.calibration is not None and "probe" in instrument.measures:
        at_the_door(instrument, {contrast.name: contrast.digest for contrast in read_probes(instrument.probes)}, active=active)


def z_fields(file: CalibrationFile, record: ProbeRecord) -> dict[str, Any]:
    """Return the fields of a scored record that hold its z-scores; none for an unscored one.

    Raises:
        ConfigError: no calibration is of the model, layer and probes that were read.
    """
    if record.value is None or record.layer is None:
        return {}
    calibration = calibration_for(file, ModelState.of(record.model, record.layer), record.contrasts)
    z_scores = calibration.z_scores({name: figures.response_max for name, figures in record.probes.items()})
    z, z_unrelated = calibration.composites(z_scores)
    against = "deployment" if calibration.state.steer is None else f"deployment steered by {calibration.state.steer}"
    controls = "" if z_unrelated is None else f", controls {z_unrelated:+.2f}"
    shown = ", ".join(f"{name} {score:+.2f}" for name, score in z_scores.items())
    return {
        "calibration": calibration.digest,
        "calibration_steer": calibration.state.steer,
        "z_scores": z_scores,
        "z": z,
        "z_unrelated": z_unrelated,
        "above_95": z > calibration.composite.above_95,
        "note": f"z against {against}: probes {z:+.2f}{controls} ({shown}); {record.note}",
    }
