"""Running a model's code: which sandbox, and how it is limited. `docker` is the default; `local` must be asked for, and warns."""

import base64
import functools
import logging
import shutil
import subprocess
from pathlib import Path
from typing import Literal

from inspect_ai.util import ExecResult, sandbox

from nla.support.errors import ConfigError

Sandbox = Literal["docker", "local"]
"""Names of the sandboxes."""
COMPOSE = Path(__file__).parent / "data" / "compose.yaml"
_MEMORY_KB = 1_000_000
_FILES_KB = 20_000
LONGEST_OUTPUT = 20_000
"""Characters of output that are kept."""
_log = logging.getLogger(__name__)


def check_sandbox(name: Sandbox) -> str | tuple[str, str]:
    """Return the sandbox for a task, after checking that it can be used; `local` logs a warning.

    In docker, code runs as `data/compose.yaml` says: without network, and with limits on processor, memory and processes.

    Raises:
        ConfigError: docker is not installed or not running.
    """
    if name == "docker" and not docker_runs():
        raise ConfigError(
            "docker is not installed or not running, and a model's code runs in a sandbox; start it, or give -T sandbox=local."
        )
    if name == "docker":
        return name, str(COMPOSE)
    _log.warning(
        "sandbox=local: code that the model writes runs with your rights, in a temporary folder, limited only in time, memory and size."
    )
    return name


def inline_files(files: dict[str, str]) -> dict[str, str] | None:
    """Return a sample's files with each content as a data URI; None where there are no files.

    Inspect takes a content that is the path of a file or folder, or a URL, for the place to read from. A data set could thereby put the
    user's own files before the model. The content of a data URI is always taken literally.
    """
    uris = {name: f"data:text/plain;base64,{base64.b64encode(content.encode()).decode()}" for name, content in files.items()}
    return uris or None


@functools.cache
def docker_runs() -> bool:
    """Return whether a docker engine answers."""
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True, timeout=30, check=False).returncode == 0


async def run_limited(command: list[str], seconds: int = 10) -> ExecResult[str]:
    """Run a command in the sandbox with limits on processor time, memory and file size, and without network where that is possible.

    A command that exceeds its time has exit status 124. Output is cut to `LONGEST_OUTPUT` characters.
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
