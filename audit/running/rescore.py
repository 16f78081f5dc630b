"""`audit score`: add awareness scores to finished logs of any provider, if it is known which open model wrote them.

The original logs are never changed; copies with the scores are written to another folder. Steering, dtype, revision and other model
arguments are taken from each log, so that activations are read from the model in the state in which it wrote the transcripts.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC
from pathlib import Path
from typing import Any

from inspect_ai import score
from inspect_ai.log import EvalLog, write_eval_log
from inspect_ai.model import Model
from inspect_ai.scorer import Scorer

from audit.config import refuse_other_settings
from audit.logs import LogHeader, Warn, log_headers, read_log, set_unreadable_aside, warn_on_stderr
from audit.running.finished_log import for_finished_samples, prepared, unscored_transcripts
from audit.running.rescore_config import RescoreConfig, settings_of
from graders.record import read_records
from graders.scorers import measure_scorers
from graders.scorers.calibrated import check_calibration
from nla.support.errors import ConfigError, DataError, HarnessError
from nla.support.files import replacing, scratch_folder
from nla.support.locks import exclusive_lock
from nla.support.paths import user_path

SETTINGS_FILE = "audit_score.settings"
"""File in an output folder with the settings of its scores. All scores in a folder must have the same settings. Its name does not end in
`.json`, so that a program that reads the folder's JSON files as logs does not stumble over it."""
_EARLIER_SETTINGS_FILE = "audit_score.json"


def score_logs(
    paths: Sequence[str], out: Path, config: RescoreConfig, say: Callable[[str], None] = lambda _: None, warn: Warn = warn_on_stderr
) -> list[Path]:
    """Write a copy of every log, with awareness scores appended, to a folder, and return the paths of the copies.

    Logs whose copy is already there are skipped, so after an interruption the same call resumes. A copy that cannot be read is made again.
    Logs that cannot be read are skipped with a warning, and so are logs that cannot be scored (unfinished, already scored, made by an
    unknown model or with other model arguments) beside others that can.

    Args:
        paths: logs, or folders of logs.
        out: folder for the copies, which is created if it does not exist.
        config: what to measure.
        say: called with a line of progress for each log, and with the number of its transcripts that stayed unscored, by reason.
        warn: called with a sentence for each log that is skipped.

    Raises:
        ConfigError: there is no log, the settings are invalid, the output folder has scores with other settings, or a log is in it.
        DataError: none of the logs is finished and not yet scored, or the output folder cannot be written to.
        ModelError: it is not known which weights wrote the logs.
    """
    measure_scorers(config.instrument)  # an unknown measure, grader or contrast set is refused before anything is written
    headers = chosen_logs(paths, out, config, warn)
    targets = copy_paths(headers, out)
    skipped: list[HarnessError] = []
    with exclusive_lock(out, "audit score", folder=True):
        keep_settings(config, out)
        set_unreadable_aside(out, warn)
        for number, (header, target) in enumerate(zip(headers, targets, strict=True), 1):
            if target.exists():
                continue
            try:
                log, model = prepared(header.location, config)
                check_calibration(config.instrument, model)
            except HarnessError as ex:
                skipped.append(ex)
                if len(headers) > 1:
                    warn(f"{ex} This log is skipped.")
                continue
            say(f"{number}/{len(targets)} {target.name}")
            copy = scored(log, model, config)
            write_log(copy, target)
            if unscored := unscored_transcripts(copy):
                say(unscored)
    if len(skipped) == len(headers):
        raise skipped[0]
    return [target for target in targets if target.exists()]


def chosen_logs(paths: Sequence[str], out: Path, config: RescoreConfig, warn: Warn) -> list[LogHeader]:
    """Return the headers of the logs among some files and folders that are to be scored, from the oldest to the newest.

    Raises:
        ConfigError: there is no readable log, or none was created since `config.since`.
    """
    given = [user_path(path) for path in paths]
    headers = log_headers(given, warn, leave_out=out)
    if not headers:
        raise ConfigError(f"There is no readable Inspect log in {', '.join(paths) or 'nothing'}; give .eval files or folders of them.")
    if config.since is None:
        return headers
    since = config.since if config.since.tzinfo else config.since.replace(tzinfo=UTC)
    recent = [header for header in headers if header.age_key[0] >= since]
    if not recent:
        raise ConfigError(f"None of the {len(headers)} logs was created since {config.since.isoformat()}; give an earlier --since.")
    return recent


def copy_paths(headers: Sequence[LogHeader], out: Path) -> list[Path]:
    """Return a path in the output folder for each log. If logs have the same name, the first digits of their id are appended.

    Raises:
        ConfigError: a log is in the output folder, or is given twice.
    """
    names = Counter(Path(header.location).name for header in headers)
    copies = {Path(copy.location).name: copy.log.eval.eval_id for copy in log_headers([out], lambda _: None)} if out.is_dir() else {}
    targets = []
    for header in headers:
        source, log_id = Path(header.location), header.log.eval.eval_id
        if source.resolve().parent == out.resolve():
            raise ConfigError(f"{source} lies in the output folder {out}; give another folder (--out), because logs are never changed.")
        is_free = names[source.name] == 1 and source.name not in copies
        name = source.name if is_free or copies.get(source.name) == log_id else f"{source.stem}-{log_id[:8]}{source.suffix}"
        targets.append(out / name)
    if len(set(targets)) < len(targets):
        raise ConfigError("Two of the logs have the same name and the same id; give each log once.")
    return targets


def keep_settings(config: RescoreConfig, out: Path) -> None:
    """Check that the copies in the output folder were made with the same settings, and write the settings to it."""
    path, settings = out / SETTINGS_FILE, settings_of(config)
    kept = next((file for file in (path, out / _EARLIER_SETTINGS_FILE) if file.is_file()), None)
    try:
        before = json.loads(kept.read_text(encoding="utf-8")) if kept is not None else _settings_of_copies(out)
    except (OSError, ValueError) as ex:
        raise DataError(f"{kept or out} cannot be read ({ex}); give another folder (--out).") from ex
    refuse_other_settings(out, "scores", before or {}, settings)
    with replacing(path) as scratch:
        scratch.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def _settings_of_copies(out: Path) -> dict[str, Any] | None:
    """Return the instrument settings in a folder's first copy, for folders without a settings file; None if there is no scored copy."""
    for header in log_headers([out], lambda _: None):
        for sample in read_log(header.location).samples or []:
            awareness = read_records(sample.scores).awareness
            if awareness is not None:
                return {"tokens": awareness.instrument.tokens, "grader": awareness.instrument.grader, "seed": awareness.instrument.seed}
    return None


def scorers_of(log: EvalLog, config: RescoreConfig) -> list[Scorer]:
    """Return the scorers of all measures for a log, whose description of the evaluation graders may use."""
    blurb = config.blurb or str((log.eval.metadata or {}).get("blurb", ""))
    return measure_scorers(config.instrument, blurb, unmarked_replies=config.unmarked_replies)


def scored(log: EvalLog, model: Model, config: RescoreConfig) -> EvalLog:
    """Return a copy of a log with the scores of all measures added to those it has."""
    scorers = scorers_of(log, config)
    return score(log, [for_finished_samples(scorer, log) for scorer in scorers], model=model, action="append", display="none")


def write_log(log: EvalLog, target: Path) -> None:
    """Write a log to a path whole or not at all.

    Raises:
        DataError: the disk is full or read-only.
    """
    with scratch_folder(target.parent) as folder:
        copy = folder / target.name  # Inspect chooses the format of a log by its suffix, so the copy keeps its name
        write_eval_log(log, str(copy))
        copy.replace(target)
