"""`audit calibrate`: from logs of deployment controls to a stored calibration of the contrast probes (`graders.calibration`)."""

from collections.abc import Sequence
from pathlib import Path

from inspect_ai.log import EvalLog

from audit.logs import Warn, newest_of_cells, warn_on_stderr
from graders.calibration import calibrations_of
from graders.number_records import ProbeRecord
from graders.record import read_records
from nla.support.errors import DataError
from nla.support.files import replacing
from tasks._info import Role


def calibrate(paths: Sequence[Path], out: Path, warn: Warn = warn_on_stderr) -> list[str]:
    """Write the calibrations that logs of deployment controls give, and return one line about each.

    Logs of other tasks, and samples that ended in an error or have no score of the probes, are left out.

    Args:
        paths: logs, folders of logs, or folders of audits.
        out: the file to write.
        warn: called with a sentence for each log that is left out.

    Raises:
        DataError: a path does not exist, no log is of a deployment control, no transcript has a score of the probes, a probe has fewer
            than two different scores, or the file cannot be written.
    """
    records: list[tuple[str, ProbeRecord]] = []
    n_controls = 0
    for log in newest_of_cells(paths, warn):
        if (log.eval.metadata or {}).get("role") != Role.DEPLOYMENT_CONTROL:
            warn(f"{log.location} is of {log.eval.task}, which is no deployment control. It is left out.")
            continue
        n_controls += 1
        records += [(log.eval.task, record) for record in _records(log)]
    if not n_controls:
        raise DataError("None of the logs is of a deployment control; give logs of tasks such as wildchat or sharegpt.")
    file = calibrations_of(records)
    with replacing(out) as scratch:
        scratch.write_text(file.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return [
        f"{out}: {calibration.state.model or 'a model'}, layer {calibration.state.layer}, "
        f"steering {calibration.state.steer or 'none'}: {calibration.composite.n} transcripts of {', '.join(calibration.tasks)}, "
        f"{len(calibration.probes)} probes"
        for calibration in file.calibrations
    ]


def _records(log: EvalLog) -> list[ProbeRecord]:
    """The probes' records of the samples that did not end in an error."""
    try:
        records = [read_records(sample.scores).probe for sample in log.samples or [] if sample.error is None]
    except DataError as ex:
        raise DataError(f"{log.location}: {ex}") from ex
    return [record for record in records if record is not None]
