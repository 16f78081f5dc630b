"""What a known-groups check of the audited model says about each measure: the second half of assay sensitivity.

`nla organism check` reads identical replies under evaluation and deployment contexts, where a model with an implanted state is known to
differ. The organisms of this project ship with their checks; for another model, the audit's `known_groups` names a file.
"""

from collections.abc import Mapping
from dataclasses import replace

import pandas as pd

from audit.analysis.measure_results import AssaySensitivity
from audit.analysis.measure_scores import PROBE, SINGLE
from audit.analysis.measure_words import known_groups_sentence
from audit.analysis.tables import ADAPTER, identity_values, rows_read
from audit.config import AuditConfig
from audit.stats.rates import Estimate
from nla.activations.contrast_sets import TESTING
from nla.organisms.stored_check import Interval, StoredCheck, read_check, shipped_check
from nla.support.display import visible
from nla.support.errors import ConfigError
from nla.support.paths import user_path


def check_of(config: AuditConfig, transcripts: pd.DataFrame) -> StoredCheck | None:
    """Return the known-groups check of an audit's model, or None if there is none.

    Args:
        config: the audit.
        transcripts: one row per transcript.

    Raises:
        ConfigError: the file that the audit names is of another model, adapter or layer.
        DataError: the file cannot be read.
    """
    measured = rows_read(transcripts)
    if not len(measured):
        return None
    adapter, layer = (" ".join(identity_values(measured, name)) for name in (ADAPTER, "layer"))
    if config.known_groups is None:
        check = shipped_check(adapter)
        return check if check is not None and not _differences(check, measured, adapter, layer) else None
    check = read_check(user_path(config.known_groups))
    if differences := _differences(check, measured, adapter, layer):
        raise ConfigError(
            f"known_groups={visible(config.known_groups, limit=200)} is a check of another model: {'; '.join(differences)}. Make one "
            "for this model with `nla organism check MODEL --json FILE`."
        )
    return check


def _differences(check: StoredCheck, measured: pd.DataFrame, adapter: str, layer: str) -> list[str]:
    """In what the check's model and layer differ from the audit's."""
    names = " ".join(identity_values(measured, "model_name"))
    pairs = {"model": (str(check.model.get("model")), names), "adapter": (check.adapter, adapter), "layer": (check.layer, layer)}
    return [
        f"{name} {visible(of_check, limit=80)}, not {visible(of_audit, limit=80)}"
        for name, (of_check, of_audit) in pairs.items()
        if _text(of_check) != _text(of_audit)
    ]


def _text(value: object) -> str:
    """A layer may be stored as 20 or as 20.0 (missing values in its column). Of an adapter the digest counts: folders may be moved."""
    return str(value).removesuffix(".0").rpartition("@")[2]


def with_known_groups(assays: Mapping[str, AssaySensitivity], check: StoredCheck | None) -> dict[str, AssaySensitivity]:
    """Return what is known about each measure's sensitivity, with what the check says about it."""
    areas = {} if check is None else {name: _estimate(area) for name, area in check.auroc.items()}
    return {measure: _with(assay, areas.get(_name_in_check(measure))) for measure, assay in assays.items()}


def _with(assay: AssaySensitivity, area: Estimate | None) -> AssaySensitivity:
    return assay if area is None else replace(assay, known_groups=area, known_groups_sentence=known_groups_sentence(area))


def _name_in_check(measure: str) -> str:
    """The check calls the probe of the paper's pair `probe`, and the composite of the evaluation probes `probe_composite`."""
    if measure == PROBE:
        return "probe_composite"
    name = measure.removeprefix(SINGLE)
    return measure if name == measure else PROBE if name == TESTING else f"probe_{name}"


def _estimate(area: Interval) -> Estimate:
    return Estimate(area.estimate, area.low, area.high, area.n, "bootstrap over prompts")
