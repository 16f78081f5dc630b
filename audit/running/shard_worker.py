"""`audit score --shard I/N`: score the transcripts of one shard, whichever logs they are in.

A worker needs the logs and the output folder, and no other worker. It writes one part per log, whole or not at all, and makes only the
parts that are missing, so that a killed worker costs the part in work.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from inspect_ai.log import EvalLog, read_eval_log

from audit.logs import Warn, warn_on_stderr
from audit.running.finished_log import prepared, unscored_transcripts
from audit.running.rescore import scored, write_log
from audit.running.rescore_config import RescoreConfig
from audit.running.shards import Part, Shard, ShardPlan, shard_folder
from graders.scorers.calibrated import check_calibration
from nla.support.errors import DataError, HarnessError, first_line
from nla.support.files import scratch_folder
from nla.support.locks import exclusive_lock


def score_shard(
    plan: ShardPlan,
    where: Mapping[str, str],
    out: Path,
    config: RescoreConfig,
    number: int,
    say: Callable[[str], None] = lambda _: None,
    warn: Warn = warn_on_stderr,
) -> int:
    """Make the parts of a shard that are missing, and return how many transcripts were scored for that.

    Args:
        plan: how the work is divided (`audit.running.shards.make_plan`).
        where: the locations of the logs, by id.
        out: the output folder.
        config: what to measure.
        number: I, the shard.
        say: called with a line of progress for each log, and with the number of its transcripts that stayed unscored, by reason.
        warn: called with a sentence for each part that cannot be read and is made again.

    Raises:
        ConfigError: another process works on the shard, or the model is in another state than the one that wrote a log.
        ModelError, FetchError: a model cannot be loaded. The parts of other logs are made before this is raised.
        DataError: a log has changed since the work was divided, or the folder cannot be written to.
    """
    shard = Shard(number, plan.shards)
    done, errors = 0, []
    with exclusive_lock(shard_folder(out, shard), f"audit score --shard {shard}", folder=True):
        for part in plan.parts(number):
            if _is_there(part, out, warn):
                continue
            say(f"shard {shard}: {part.stop - part.start} transcripts of {part.log.name}")
            try:
                piece = _scored_part(part, where[part.log.log_id], config, plan.dtype)
            except HarnessError as ex:
                errors.append(ex)
                continue
            write_part(piece, part.path(out))
            done += part.stop - part.start
            if unscored := unscored_transcripts(piece):
                say(unscored)
    if errors:
        raise errors[0]
    return done


def _is_there(part: Part, out: Path, warn: Warn) -> bool:
    """Whether a part is finished. One that cannot be read, which no kill leaves but a damaged disk may, is made again."""
    if not part.path(out).exists():
        return False
    try:
        read_part(part, out)
    except DataError as ex:
        warn(f"{ex} It is made again.")
        return False
    return True


def _scored_part(part: Part, location: str, config: RescoreConfig, dtype: str) -> EvalLog:
    """Return a log with the samples of one part, scored; the rest of the log is as it was before scoring."""
    log, model = prepared(location, config, dtype)
    check_calibration(config.instrument, model)
    samples = log.samples or []
    if len(samples) != part.log.transcripts:
        raise DataError(
            f"{location} has {len(samples)} transcripts; when the work was divided it had {part.log.transcripts}. "
            "Give the log as it was, or another folder (--out)."
        )
    piece = log.model_copy(update={"samples": samples[part.start : part.stop]})
    return log.model_copy(update={"samples": scored(piece, model, config).samples})


def write_part(piece: EvalLog, path: Path) -> None:
    """Write the scored samples of a part, whole or not at all.

    Raises:
        DataError: the disk is full or read-only.
    """
    with scratch_folder(path.parent) as folder:
        write_log(piece, folder / "part.eval")
        (folder / "part.eval").replace(path)


def read_part(part: Part, out: Path) -> EvalLog:
    """Return the scored samples of a part, in the log that they are of.

    Raises:
        DataError: the file is missing, cannot be read, or holds something else than this part.
    """
    path = part.path(out)
    try:
        piece = read_eval_log(str(path), format="eval")
    except Exception as ex:  # the readers of zip, zstd, JSON and pydantic each raise their own classes
        raise DataError(f"{path} cannot be read ({first_line(ex)}).") from None
    n = len(piece.samples or [])
    if piece.eval.eval_id != part.log.log_id or n != part.stop - part.start:
        raise DataError(
            f"{path} holds {n} transcripts of the log {piece.eval.eval_id}; expected {part.stop - part.start} of {part.log.log_id}."
        )
    return piece
