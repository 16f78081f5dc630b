"""Who does the work of `audit score`: this process, one shard of it, or workers that a launcher starts."""

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from audit.running.rescore_config import RescoreConfig
from nla.support.display import visible
from nla.support.errors import ConfigError

_TEMPLATE = Path(__file__).parent / "templates" / "slurm_array.sh.txt"
RAY, SLURM = "ray", "slurm"
SHARDS_PER_WORKER = 12
"""With Ray, unless the user says how many: a worker that ends early takes another shard, and a killed one loses little."""
_OF_LAUNCHING = frozenset({"shard", "engine", "workers", "shards"})


@dataclass(frozen=True)
class Launch:
    """How the user wants the work divided; None for what was not given."""

    shard: str | None = None
    engine: str | None = None
    workers: int | None = None
    shards: int | None = None

    @property
    def is_divided(self) -> bool:
        """Whether the work is divided at all."""
        return any(value is not None for value in (self.shard, self.engine, self.workers, self.shards))

    def check(self) -> None:
        """Refuse options that contradict each other.

        Raises:
            ConfigError: `--shard` with an engine, numbers without one, an unknown engine, or SLURM without the number of shards.
        """
        engine = (self.engine or "").partition(":")[0]
        if self.shard is not None and (self.engine or self.workers or self.shards):
            raise ConfigError("--shard I/N does one shard in this process; leave out --engine, --workers and --shards.")
        if self.shard is None and engine not in (RAY, SLURM):
            found = f"'{visible(self.engine, limit=40)}'" if self.engine else "--workers or --shards without an engine"
            raise ConfigError(
                f"Invalid --engine: found {found}; expected ray, ray:ADDRESS or slurm. To do one shard here, give --shard I/N."
            )
        if engine == SLURM and (self.shards is None or self.workers is not None):
            raise ConfigError("--engine slurm needs --shards N, and no --workers: SLURM decides how many shards run at once.")
        if engine == RAY and self.workers is None:
            raise ConfigError("--engine ray needs --workers N: how many shards are scored at once.")


def launch(
    how: Launch, paths: Sequence[str], out: Path, config: RescoreConfig, context: typer.Context, say: Callable[[str], None]
) -> list[str]:
    """Do what `--shard` or `--engine` asks for, and return the lines to print at the end.

    Raises:
        ConfigError: the options contradict each other; or see `audit.running.shards.make_plan`.
        HarnessError: see `audit.running.shard_worker.score_shard` and `audit.running.ray_engine.score_on_ray`.
    """
    how.check()
    if how.shard is not None:
        return _one_shard(how.shard, paths, out, config, say)
    engine, _, address = (how.engine or "").partition(":")
    if engine == SLURM:
        return slurm_script(typed_words(context), out, how.shards or 1).splitlines()
    from audit.running.ray_engine import score_on_ray

    return [str(path) for path in score_on_ray(paths, out, config, address or None, how.workers or 1, how.shards, say)]


def _one_shard(text: str, paths: Sequence[str], out: Path, config: RescoreConfig, say: Callable[[str], None]) -> list[str]:
    from audit.logs import warn_on_stderr
    from audit.running.shard_worker import score_shard
    from audit.running.shards import make_plan, parse_shard
    from graders.scorers import measure_scorers

    shard = parse_shard(text)
    measure_scorers(config.instrument)  # an unknown measure, grader or contrast set is refused before anything is written
    plan, where = make_plan(paths, out, config, shard.of, warn_on_stderr)
    done = score_shard(plan, where, out, config, shard.number, say)
    finished = len(plan.finished(out))
    rest = f"then: audit merge {shlex.quote(str(out))}" if finished < shard.of else f"now: audit merge {shlex.quote(str(out))}"
    return [f"shard {shard}: {done} transcripts scored; {finished} of {shard.of} shards are done, {rest}"]


def slurm_script(words: Sequence[str], out: Path, shards: int) -> str:
    """Return a SLURM array script with one task per shard.

    Args:
        words: the `audit score` command without the options of launching.
        out: the output folder.
        shards: N.
    """
    values = {"SHARDS": str(shards), "COMMAND": shlex.join(words), "MERGE": visible(_quoted(shlex.join(["audit", "merge", str(out)])))}
    return re.sub("SHARDS|COMMAND|MERGE", lambda match: values[match[0]], _TEMPLATE.read_text(encoding="utf-8"))


def _quoted(text: str) -> str:
    """Return a text as it stands between single quotes in a shell."""
    return text.replace("'", "'\\''")


def typed_words(context: typer.Context) -> list[str]:
    """Return the words of the running command as the user typed them, without the options of launching and without defaults."""
    words = ["audit", str(context.info_name)]
    for parameter in context.command.params:
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        if name in _OF_LAUNCHING or source is None or source.name != "COMMANDLINE":
            continue
        value = context.params[name]
        if parameter.param_type_name == "argument":
            words += [str(word) for word in value]
        elif isinstance(value, bool):
            words.append(parameter.opts[0] if value else parameter.secondary_opts[0])
        else:
            words += [max(parameter.opts, key=len), str(value)]
    return words
