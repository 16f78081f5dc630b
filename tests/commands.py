"""Our commands run inside the test's process: starting a process costs seconds, and most tests are not about processes.

What a user would see is the same: exit status, standard output and standard error.
"""

import contextlib
import io
import subprocess
from pathlib import Path

import pytest

import audit.cli
import nla.cli
from graders.classifier import training as classifier_training
from nla.support.command import run as run_command

MAINS = {"audit": audit.cli.main, "nla": nla.cli.main, "graders.classifier.training": lambda: run_command(classifier_training.app)}


def typed(*command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command line, given as words, in a folder, and return its exit status, standard output and standard error."""
    name, *_ = command
    out, error = io.StringIO(), io.StringIO()
    status = 0
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        patch.setattr("sys.argv", list(command))
        if cwd is not None:
            patch.chdir(cwd)
        try:
            MAINS[name]()
        except SystemExit as ex:
            status = ex.code if isinstance(ex.code, int) else int(ex.code is not None)
    return subprocess.CompletedProcess(command, status, out.getvalue(), error.getvalue())
