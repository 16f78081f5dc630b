"""Running a model's code: which sandbox, and how it is limited. `docker` is the default; `local` only by name, with a warning."""

import functools
import logging
import shutil
import subprocess

from inspect_ai.util import ExecResult, sandbox

from nla.support.errors import ConfigError

SANDBOXES = ("docker", "local")
_MEMORY_KB = 1_000_000
_FILES_KB = 20_000
LONGEST_OUTPUT = 20_000
"""Characters of output that are looked at."""
_log = logging.getLogger(__name__)


def check_sandbox(name: str) -> str:
    """The sandbox asked for.

    Raises:
        ConfigError: there is no such sandbox, or docker is not installed.
    """
    if name not in SANDBOXES:
        raise ConfigError(f"sandbox={name} makes no sense; give {' or '.join(SANDBOXES)}.")
    if name == "docker" and not _docker_runs():
        raise ConfigError(
            "docker is not installed or not running, and a model's code runs in a sandbox; start it, or give -T sandbox=local."
        )
    if name == "local":
        _log.warning(
            "sandbox=local: code that the model writes runs as you, in a temporary folder, with limits on time, memory and size only."
        )
    return name


@functools.cache
def _docker_runs() -> bool:
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True, timeout=30, check=False).returncode == 0


async def run_limited(command: list[str], seconds: int = 10) -> ExecResult[str]:
    """Run a command in the sandbox with limits on processor time, memory and file size, and without network where that can be had.

    A command over its time has exit status 124; output is cut.
    """
    limits = f"ulimit -t {seconds} -v {_MEMORY_KB} -f {_FILES_KB}; "
    offline = 'if unshare -rn true 2>/dev/null; then exec unshare -rn "$@"; else exec "$@"; fi'
    try:
        done = await sandbox().exec(["bash", "-c", limits + offline, "bash", *command], timeout=seconds + 5, timeout_retry=False)
    except TimeoutError:
        return ExecResult(False, 124, "", f"stopped after {seconds} s")
    except Exception as ex:  # output over the sandbox's own limit, undecodable output: the run failed, whatever it was
        return ExecResult(False, 1, "", f"{type(ex).__name__}: {str(ex)[:200]}")
    return ExecResult(done.success, done.returncode, done.stdout[:LONGEST_OUTPUT], done.stderr[:LONGEST_OUTPUT])
