"""What the README shows is true: its Python example runs on the shipped pair, and its lines and tree keep their limits."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_python_example_prints_explanations_of_the_shipped_pair() -> None:
    [example] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    command = [sys.executable, "-W", "error:::nla", "-c", "import torch; torch.set_num_threads(1)\n" + example]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    first, *_ = done.stdout.splitlines()
    token, cosine, explanation = re.fullmatch(r" (\S+) (-?\d\.\d+) (.+)", first).groups()  # type: ignore[union-attr]
    assert token == "is"
    assert -1 <= float(cosine) <= 1
    assert len(explanation.split()) > 2
    assert "mse_nrm" in done.stdout  # a heading of the data frame


def test_lines_are_short_and_the_texts_keep_their_length() -> None:
    assert README.count("\n") <= 260
    assert max(map(len, README.splitlines())) <= 120
    assert (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").count("\n") <= 100


def test_the_tree_names_every_folder_of_the_packages() -> None:
    [tree] = re.findall(r"## The tree\n\n```text\n(.*?)```", README, re.DOTALL)
    for package in ("nla", "graders", "audit"):
        for folder in (path.parent.name for path in (ROOT / package).glob("*/__init__.py")):
            assert f"{folder}/" in tree, f"{package}/{folder}"


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:nla|graders|tasks|audit|reports|tests)/[\w/.-]+)`", README))))
def test_paths_in_the_text_exist(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize("module", ["nla", "audit"])
def test_importing_the_api_is_fast(module: str) -> None:
    code = f"import time; start = time.perf_counter(); import {module}; print(time.perf_counter() - start)"
    times = [float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout) for _ in range(3)]
    assert min(times) < 0.2


@pytest.mark.slow
def test_a_wrong_type_in_the_api_says_what_was_expected() -> None:
    code = (
        "import nla\nfor load in (nla.load_pair, nla.load_model):\n"
        "    try:\n        load(3)\n    except nla.HarnessError as error:\n        print(error)"
    )
    # In a process of its own, because the suite's run-time type checks would come first.
    lines = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(lines) == 2
    assert all("3" in line and "expected" in line for line in lines)


def test_near_names_are_offered() -> None:
    import nla
    from nla.support.errors import HarnessError

    with pytest.raises(HarnessError, match="Did you mean 'smollm2'"):
        nla.load_pair("smolm2")
    with pytest.raises(AttributeError, match="load_pair"):
        _ = nla.load_pear  # type: ignore[attr-defined]
