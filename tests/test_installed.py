"""The wheel, built and installed apart from the checkout: all files are in it, and its commands and tasks work elsewhere."""

import inspect
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from inspect_ai._eval.loader import load_tasks
from inspect_ai._util.registry import registry_has
from inspect_ai.log import list_eval_logs, read_eval_log

import nla.inspect.task_registry  # noqa: F401  (registers the tasks, as Inspect's entry point does)
from audit.task_files import task_function, task_names

pytestmark = pytest.mark.slow

Folder = Callable[[str], Path]
ROOT = Path(__file__).parents[1]
PACKAGES = ("audit", "graders", "nla", "reports", "tasks")
NOT_INSTALLED = {"reports/example.png"}
"""The README's picture."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("setuptools", minversion="77", reason="setuptools is too old to build the wheel without a network")
    source = tmp_path_factory.mktemp("source")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = ["pip", "wheel", str(source), "--no-deps", "--no-build-isolation", "--quiet", "-w", str(source / "dist")]
    subprocess.run([sys.executable, "-m", *command], check=True, capture_output=True)
    [built] = (source / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """The folder of installed packages. What ours depend on stays where it is."""
    folder = wheel.parent / "site-packages"
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder)
    return folder


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


def start(installed: Path, folder: Path, main: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command as its script does, and check that nothing of the checkout was imported."""
    code = (
        f"import sys, os; from {main} import main; sys.argv = sys.argv[1:]\n"
        "try:\n    main()\n"
        "finally:\n"
        f"    ours = [module.__file__ or '' for name, module in sys.modules.items() if name.partition('.')[0] in {PACKAGES}]\n"
        f"    assert ours and all(file.startswith({str(installed)!r}) for file in ours), ours\n"
    )
    environment = os.environ | {"PYTHONPATH": str(installed), "COLUMNS": "120"}
    command = [sys.executable, "-P", "-c", code, *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_every_file_of_the_packages_is_in_the_wheel(wheel: Path) -> None:
    files = {path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file()}
    ours = {str(path) for path in files if "__pycache__" not in path.parts} - NOT_INSTALLED
    assert ours <= set(zipfile.ZipFile(wheel).namelist())


def test_lists_of_tasks_and_models_are_shown_elsewhere(installed: Path, elsewhere: Path) -> None:
    tasks = start(installed, elsewhere, "audit.cli", "audit", "tasks")
    assert tasks.returncode == 0, tasks.stderr
    assert set(task_names()) <= {line.partition(" ")[0] for line in tasks.stdout.splitlines()}
    models = start(installed, elsewhere, "nla.cli", "nla", "models")
    assert models.returncode == 0, models.stderr
    assert "smollm2" in models.stdout


def test_a_task_runs_by_its_name_elsewhere(installed: Path, elsewhere: Path, tiny_folder: Folder) -> None:
    options = ["-T", "source=bundled", "-T", "measures=verbalized", "--limit", "1", "--max-tokens", "4", "--display", "none"]
    model = f"local/{tiny_folder('llama')}"
    done = start(installed, elsewhere, "inspect_ai._cli.main", "inspect", "eval", "tasks/mmlu", "--model", model, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    [info] = list_eval_logs(str(elsewhere / "logs"))
    log = read_eval_log(info)
    assert (log.status, log.eval.task, log.eval.task_registry_name) == ("success", "mmlu", "tasks/mmlu")
    assert set((log.samples or [])[0].scores or {}) == {"choice", "verbalized_awareness"}


def test_an_audit_runs_elsewhere(installed: Path, elsewhere: Path, tiny_folder: Folder) -> None:
    """Inspect puts the package before the names of installed tasks; an audit that knows them by plain names never came to its end."""
    options = ["--limit", "1", "--max-tokens", "4", "--measures", "verbalized", "--controls", "0", "--no-positive-control", "--out", "out"]
    model = f"local/{tiny_folder('llama')}"
    given = ["--model", model, "--tasks", "mmlu", "--source", "bundled", *options]
    done = start(installed, elsewhere, "audit.cli", "audit", "run", *given)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (elsewhere / "out" / "audit.json").is_file()


@pytest.mark.parametrize("name", task_names())
def test_every_task_has_its_name_and_keeps_the_plain_one_in_logs(name: str) -> None:
    assert registry_has("task", f"tasks/{name}")
    arguments: dict[str, object] = {"source": "bundled"}
    if name == "any":
        arguments = {"task": f"{ROOT / 'tasks' / 'mmlu.py'}@mmlu", "args": json.dumps(arguments)}
    if name == "auditing_game":
        arguments = {"rounds": 1}
    if "sandbox" in inspect.signature(task_function(name)).parameters:
        arguments |= {"sandbox": "local"}
    [task] = load_tasks([f"tasks/{name}"], arguments)
    assert task.name == name
    assert task.registry_name == f"tasks/{name}"
