"""A package of the user's that hides one of ours is named, with what to do; a user who needs none of ours is left alone."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nla.support.errors import ConfigError
from nla.support.shadowing import HiddenPackageError, hiding

ROOT = Path(__file__).parents[1]
_INSTALLED = """
import os, runpy, sys
sys.path[0] = os.getcwd()  # as under `python -m`
sys.meta_path[:] = [finder for finder in sys.meta_path if "__editable__" not in getattr(finder, "__module__", "")]
sys.argv = sys.argv[1:]
"""
"""An editable install finds `tasks._shared` whatever `tasks` is; what users install does not."""


def start(*words: str, folder: Path, code: str = "") -> subprocess.CompletedProcess[str]:
    """Run `python -m WORDS`, or code, in a user's folder, with our packages found as installed ones are: after those in the folder."""
    run = code or "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
    command = [sys.executable, "-c", _INSTALLED + run, *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def own_package(folder: Path) -> Path:
    path = folder / "tasks" / "__init__.py"
    path.parent.mkdir(parents=True)
    path.touch()
    return path


def own_module(folder: Path) -> Path:
    path = folder / "tasks.py"
    path.write_text("mine = 1\n")
    return path


def one_message(output: str, theirs: Path) -> None:
    [line] = [line for line in output.splitlines() if line.strip()]
    assert line.startswith(f"error: {theirs} hides the package `tasks` of awareness-audit ({ROOT / 'tasks'}), which is needed here.")
    assert "Rename it, or" in line
    assert "by these names and not by `python -m`" in line


@pytest.mark.parametrize("own", [own_package, own_module])
def test_our_command_in_a_folder_with_its_own_tasks(own: Callable[[Path], Path], tmp_path: Path) -> None:
    theirs = own(tmp_path)
    done = start("audit", "tasks", folder=tmp_path)
    assert done.returncode == 2
    one_message(done.stderr, theirs)


@pytest.mark.slow
def test_a_task_file_of_ours_in_a_package_of_the_same_name(tmp_path: Path) -> None:
    theirs = own_package(tmp_path)
    (theirs.parent / "colours.py").write_text((ROOT / "audit/running/templates/new_task.py.txt").read_text().replace("NAME", "colours"))
    done = start("inspect_ai", "eval", "tasks/colours.py", "--model", "mockllm/model", "--display", "none", folder=tmp_path)
    assert done.returncode != 0
    one_message(done.stderr, theirs)


@pytest.mark.slow
def test_from_python_it_is_an_error_of_ours_and_an_import_error(tmp_path: Path) -> None:
    own_package(tmp_path)
    code = (
        "import audit, nla\n"
        "try:\n    audit.run_audit({'model': 'local/smollm2', 'tasks': ['mmlu']}, 'out')\n"
        "except nla.HarnessError as error:\n    print(isinstance(error, ImportError), error)"
    )
    done = start(folder=tmp_path, code=code)
    assert done.stdout.startswith(f"True {tmp_path}/tasks/__init__.py hides the package"), done.stderr
    assert issubclass(HiddenPackageError, ConfigError)


def test_what_is_no_module_of_ours_stays_python_s_own_error(tmp_path: Path) -> None:
    own_package(tmp_path)
    for module in ("tasks.theirs", "nothing_at_all"):
        done = start(folder=tmp_path, code=f"import audit, tasks, {module}")
        assert done.stderr.splitlines()[-1] == f"ModuleNotFoundError: No module named '{module}'"
    assert [hiding(name) for name in ("tasks._shared", "tasks", "json.nothing", "", None)] == [None] * 5


@pytest.mark.slow
def test_a_task_that_imports_its_own_tasks_module_gets_it(tmp_path: Path) -> None:
    """Inspect loads the entry points of all packages first; ours must not put our `tasks` in the way."""
    own_module(tmp_path)
    done = start(folder=tmp_path, code="import nla.inspect.registry, nla.inspect.task_registry, graders.registry, tasks; print(tasks.mine)")
    assert done.stdout == "1\n", done.stderr
