"""The project's own rules: layers, lengths, first lines, and the private names of Inspect it rests on."""

import ast
import importlib
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(path for folder in ("audit", "graders", "nla", "reports", "tasks", "tests") for path in (ROOT / folder).rglob("*.py"))


def test_imports_point_down() -> None:
    done = subprocess.run(["lint-imports"], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_short_and_say_what_they_are_for(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert ast.get_docstring(tree)
    assert text.count("\n") <= 400
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = {node.name: node.end_lineno - node.lineno + 1 for node in functions if (node.end_lineno or 0) - node.lineno >= 60}
    assert not long


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("inspect_ai._eval.loader", "load_tasks"),
        ("inspect_ai._util.error", "PrerequisiteError"),
        ("inspect_ai._util.logger", "warn_once"),
        ("inspect_ai._util.registry", "registry_add"),
        ("inspect_ai.log._samples", "sample_active"),
        ("inspect_ai.model._model", "active_model"),
        ("inspect_ai.model._model", "init_sample_model_data"),
        ("inspect_ai.model._providers.util", "HFHandler"),
    ],
)
def test_private_names_of_inspect_are_where_they_were(module: str, name: str) -> None:
    assert hasattr(importlib.import_module(module), name)


@pytest.mark.parametrize(
    "listing",
    [
        "import nla.inspect.registry, graders.registry",
        "from audit.cli import tasks_command; tasks_command()",
    ],
)
def test_scorers_and_tasks_are_listed_without_packages_that_take_seconds(listing: str) -> None:
    code = f"{listing}\nimport sys; print([name for name in ('torch', 'transformers', 'scipy', 'pandas') if name in sys.modules])"
    done = subprocess.run(["python", "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[]"
