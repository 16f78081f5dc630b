"""`audit score`: add awareness to finished logs, whatever provider made them, as long as the open model behind them is known."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from inspect_ai import score
from inspect_ai.log import EvalLog, list_eval_logs, read_eval_log, write_eval_log

from graders.scorers.nla_awareness import WEIGHTS_BY_NAME, nla_awareness
from graders.scorers.verbalized_awareness import verbalized_awareness
from nla.support.errors import ConfigError, DataError, ModelError
from nla.support.paths import user_path

OURS = "nla_awareness"


@dataclass(frozen=True)
class ScoreSettings:
    """What to measure, and of which model; see `graders.scorers.nla_awareness.nla_awareness`."""

    model: str | None = None
    tokens: int = 50
    verbalizer: str = "av"
    nla: str | None = None
    grader: str = "rules"
    layer: int | None = None
    seed: int = 0
    blurb: str = ""


def score_logs(paths: Sequence[str], out: Path, settings: ScoreSettings, say: Callable[[str], None] = lambda _: None) -> list[Path]:
    """Write a copy of every log with the awareness scores appended, into a folder; the logs themselves stay as they are.

    Logs that have been scored there already are left out, so the same command goes on after an interruption.

    Raises:
        ConfigError: no log, or settings that make no sense.
        DataError: a log that is still running, was cut off, or is scored already.
        ModelError: it is not told which weights are behind a log.
    """
    listed = [info.name.removeprefix("file://") for path in paths for info in list_eval_logs(str(user_path(path)))]
    found = list(dict.fromkeys([*listed, *(str(user_path(path)) for path in paths if user_path(path).is_file())]))
    if not found:
        raise ConfigError(f"no Inspect log in {', '.join(paths) or 'nothing'}; give .eval files or folders of them.")
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for number, location in enumerate(found, 1):
        target = out / Path(location).name
        if not target.exists():
            say(f"{number}/{len(found)} {target.name}")
            _write(_scored(_checked(location), settings), target)
        written.append(target)
    return written


def _checked(location: str) -> EvalLog:
    log = read_eval_log(location)
    if log.status != "success" or not log.samples:
        raise DataError(f"{location} is no finished log (status {log.status}); `inspect eval-retry` finishes it.")
    if any(OURS in (sample.scores or {}) for sample in log.samples):
        raise DataError(f"{location} has awareness scores already; score the log it was made from, or read it as it is.")
    return log


def _scored(log: EvalLog, settings: ScoreSettings) -> EvalLog:
    blurb = settings.blurb or str((log.eval.metadata or {}).get("blurb", ""))
    scorers = [
        nla_awareness(
            tokens=settings.tokens,
            verbalizer=settings.verbalizer,
            nla=settings.nla,
            grader=settings.grader,
            layer=settings.layer,
            seed=settings.seed,
            blurb=blurb,
            model=settings.model,
        ),
        verbalized_awareness(grader=settings.grader, blurb=blurb),
    ]
    return score(log, scorers, model=_weights(log, settings.model), action="append", display="none")


def _weights(log: EvalLog, name: str | None) -> str:
    """The log's model as a `local/` one, so that no other provider is started for it."""
    provider, _, weights = log.eval.model.partition("/")
    if name is None and (provider not in WEIGHTS_BY_NAME or not weights):
        raise ModelError(f"{log.location} was made by {log.eval.model}, which does not say what open weights are behind it; give --model.")
    return f"local/{name or weights}"


def _write(log: EvalLog, target: Path) -> None:
    scratch = target.with_name(f".{target.stem}.tmp{target.suffix}")
    write_eval_log(log, str(scratch))
    scratch.replace(target)
