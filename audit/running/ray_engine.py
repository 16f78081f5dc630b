"""`audit score --engine ray`: one actor per worker takes shard after shard, and keeps the weights in memory between them.

Ray only hands out shards. What is done is what lies in the output folder, so that the same command resumes after anything. (Ray Data's
own checkpoints are per written block, and save nothing of one that fails midway.)

Ray listens on all interfaces of the machine. Where this command starts Ray, only programs that know a token of this run can use it.
"""

import importlib
import importlib.util
import logging
import os
import secrets
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audit.logs import Warn, warn_on_stderr
from audit.running.launch import SHARDS_PER_WORKER
from audit.running.merge import merge_shards
from audit.running.rescore_config import RescoreConfig
from audit.running.shard_worker import score_shard
from audit.running.shards import PLAN_FILE, Shard, ShardPlan, make_plan, read_plan, shard_folder
from graders.scorers import measure_scorers
from nla.support.command import resource_error
from nla.support.display import visible
from nla.support.errors import ConfigError, DataError, HarnessError, StoppedError, first_line

_MOST_TRIES = 3
"""How often one run tries a shard. Ray starts killed workers again without end, also where a shard needs more memory than there is."""
_TRIES = ".tries-"
"""First part of the name of the file that counts them in a shard's folder."""
_OBJECT_STORE_BYTES = 128 * 2**20
"""Ray's default is a third of the memory, but what passes through it here is a few numbers per shard."""


@dataclass(frozen=True)
class Job:
    """What every worker of a run gets."""

    plan: ShardPlan
    where: dict[str, str]
    """Absolute locations of the logs, by id."""
    out: Path
    config: RescoreConfig
    folder: Path
    """Where the command was started; paths in the settings are relative to it."""
    run: str
    """Tells the tries of this run from those of earlier ones."""


class ShardWorker:
    """Scores shards in a process of Ray's; the weights stay in its memory. A user's mistake is returned, not raised: Ray would retry it."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Score the shard that a row names, and return its number, the transcripts scored, what was said, and the error, if any."""
        number, error = int(row["shard"]), ""
        lines: list[str] = []
        try:
            done = self._score(number, lines.append)
        except HarnessError as ex:
            done, error = 0, str(ex)
        except Exception as ex:
            message = resource_error(ex)
            if message is None:
                raise
            done, error = 0, message
        return {"shard": number, "done": done, "lines": "\n".join(lines), "error": error}

    def _score(self, number: int, say: Callable[[str], None]) -> int:
        job = self._job
        if not job.folder.is_dir():
            raise ConfigError(
                f"The machine {socket.gethostname()} has no folder {job.folder}; on a cluster, start the command in a shared folder."
            )
        os.chdir(job.folder)
        folder = shard_folder(job.out, Shard(number, job.plan.shards))
        tries = _count_try(folder, job.run)
        if tries > _MOST_TRIES:
            raise DataError(f"its worker was killed {tries - 1} times; if memory was short, give fewer --workers or --model-args batch=8.")
        try:
            return score_shard(job.plan, job.where, job.out, job.config, number, say, say)
        finally:  # a killed process does not come here
            for counted in folder.glob(f"{_TRIES}*"):
                counted.unlink(missing_ok=True)


def _count_try(folder: Path, run: str) -> int:
    """Return how often this run has begun a shard, this time included."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{_TRIES}{run}").open("ab") as tries:
        tries.write(b".")
        return tries.tell()


def score_on_ray(
    paths: Sequence[str],
    out: Path,
    config: RescoreConfig,
    address: str | None,
    workers: int,
    shards: int | None,
    say: Callable[[str], None],
    warn: Warn = warn_on_stderr,
) -> list[Path]:
    """Score all shards that are not finished, merge them, and return the paths of the logs.

    Args:
        paths: logs, or folders of logs. On a cluster they lie, as the output folder does, where every machine finds them.
        out: the output folder.
        config: what to measure.
        address: of a running Ray cluster; None starts Ray on this machine, for this command.
        workers: how many shards are scored at once.
        shards: N; None takes that of the folder's plan, or twelve per worker.
        say: called with a line of progress per shard.
        warn: called with a sentence for each log that cannot be scored.

    Raises:
        ConfigError: Ray is not installed or not reachable, the cluster has too few CPUs; or see `make_plan`.
        DataError: shards could not be scored; the others are kept.
        StoppedError: the user stopped the command (Ctrl-C).
    """
    if workers < 1:
        raise ConfigError(f"Invalid --workers {workers}: expected at least 1.")
    _require_ray()
    measure_scorers(config.instrument)
    n = shards or (read_plan(out).shards if (out / PLAN_FILE).is_file() else workers * SHARDS_PER_WORKER)
    plan, where = make_plan(paths, out, config, n, warn)
    finished = set(plan.finished(out))
    pending = [number for number in range(1, plan.shards + 1) if number not in finished]
    say(f"{len(pending)} of {plan.shards} shards are to be scored by {workers} workers.")
    if pending:
        here = {log_id: str(Path(location).resolve()) for log_id, location in where.items()}
        job = Job(plan, here, out.resolve(), config, Path.cwd(), secrets.token_hex(4))
        _raise_first(_run(job, pending, address, min(workers, len(pending)), say))
    return merge_shards(out, say, warn)


def _require_ray() -> None:
    """Check that Ray Data can be imported.

    Raises:
        ConfigError: it cannot.
    """
    if importlib.util.find_spec("ray") is None:
        raise ConfigError(
            "--engine ray needs Ray Data, and no package ray is installed here; run `pip install 'awareness-audit[ray]'` "
            "(or `pip install 'ray[data]>=2.52'`), or divide the work without it: --shard I/N."
        )


def _run(job: Job, pending: Sequence[int], address: str | None, workers: int, say: Callable[[str], None]) -> list[str]:
    """Score shards on Ray, and return the errors of those that could not be scored."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # 15 by default, under which any other program slows the workers down
    if address is None and not os.environ.get("RAY_AUTH_MODE"):
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # an error that is none (ray-project/ray#53727) would be printed
    import ray

    try:
        _start(ray, address, workers, say)
        return _scored_rows(ray, job, pending, workers, say)
    except KeyboardInterrupt:
        raise StoppedError("Stopped. Finished shards are kept; the same command does the others.") from None
    except (ray.exceptions.RayActorError, ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError) as ex:
        raise DataError(
            f"A worker ended before its shard did ({first_line(ex)}). The same command does the shards that are missing."
        ) from ex
    finally:
        ray.shutdown()


def _start(ray: Any, address: str | None, workers: int, say: Callable[[str], None]) -> None:
    """Start Ray on this machine, or connect to a cluster.

    Raises:
        ConfigError: there is no cluster at the address, or it has too few CPUs.
    """
    quiet = {"logging_level": "ERROR", "log_to_driver": False}
    if address is None:
        threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // workers))
        # One CPU more than workers: Ray Data's own reads and writes need one, and wait for ever without it.
        options = {"num_cpus": workers + 1, "include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
        ray.init(address="local", **options, **quiet, runtime_env={"env_vars": {"OMP_NUM_THREADS": threads}})
        say("Ray listens on all network interfaces of this machine; only this command has the token with which it can be used.")
        return
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as ex:
        raise ConfigError(
            f"No Ray cluster answers at '{visible(address, limit=80)}' ({first_line(ex)}); give the address that `ray start --head` "
            "printed, and set RAY_AUTH_MODE=token if the cluster requires a token, as those of newer versions do."
        ) from ex
    cpus = int(ray.cluster_resources().get("CPU", 0))
    if cpus < workers + 1:
        raise ConfigError(
            f"The Ray cluster has {cpus} CPUs; {workers} workers need {workers + 1}, since Ray's reads and writes need one of their own. "
            f"Give --workers {max(cpus - 1, 1)}, or add machines."
        )


def _scored_rows(ray: Any, job: Job, pending: Sequence[int], workers: int, say: Callable[[str], None]) -> list[str]:
    data = importlib.import_module("ray.data")
    data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    gpus = float(ray.cluster_resources().get("GPU", 0))
    rows = data.from_items([{"shard": number} for number in pending], override_num_blocks=len(pending))
    results = rows.map(
        ShardWorker,
        fn_constructor_args=(job,),
        compute=data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
        num_cpus=1,
        num_gpus=gpus_each(gpus, workers),
    )
    errors = []
    for ended, row in enumerate(results.iter_rows(), 1):
        for line in row["lines"].splitlines():
            say(line)
        if row["error"]:
            errors.append(f"Shard {row['shard']}/{job.plan.shards}: {row['error']}")
        say(f"shard {row['shard']}/{job.plan.shards} {'failed' if row['error'] else 'is done'} ({ended} of {len(pending)})")
    return errors


def gpus_each(gpus: float, workers: int) -> float:
    """Return how many GPUs each worker gets: all of them shared out, or, with fewer GPUs than workers, the same share of one."""
    if gpus < 1:
        return 0
    return float(gpus // workers) if gpus >= workers else 1 / -(-workers // int(gpus))


def _raise_first(errors: Sequence[str]) -> None:
    if errors:
        more = f" {len(errors) - 1} other shards failed too." if len(errors) > 1 else ""
        raise DataError(f"{errors[0]}{more} Finished shards are kept; the same command does the others.")
