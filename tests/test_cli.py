"""The command lines as a user types them, in processes of their own."""

import shlex
from pathlib import Path

import pytest
from inspect_ai.log import list_eval_logs, read_eval_log

from tests.commands import typed
from tests.prepared import Prepared

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "local/nope"], "No model is named 'nope'"),
        (["--model", "local/smollm2", "-M", "dtyp=x"], "Unknown model argument dtyp"),
        (["--model", "mockllm/model", "-T", "source=nowhere.parquet"], "is not a file"),
        (["--model", "mockllm/model", "-T", "source=bundled", "-T", "grader=nobody"], "no grader named 'nobody'"),
    ],
)
def test_a_users_mistake_is_one_message_without_traceback(arguments: list[str], said: str, tmp_path: Path, prepared: Prepared) -> None:
    done = prepared.run("inspect", "eval", "tasks/mmlu.py", "--limit", "1", "--log-dir", str(tmp_path), *arguments)
    output = " ".join((done.stdout + done.stderr).split())
    assert done.returncode != 0
    assert said in output
    assert "Traceback" not in output
    assert len(output) < 500


def test_models_are_listed_with_their_state() -> None:
    done = typed("nla", "models")
    assert done.returncode == 0
    assert "smollm2" in done.stdout
    assert "gated" in done.stdout


def test_an_unknown_model_cannot_be_fetched() -> None:
    done = typed("nla", "models", "fetch", "nope")
    assert done.returncode == 2
    assert done.stderr.startswith("error: No model is named 'nope'")


@pytest.mark.slow
def test_the_demo_ends_in_a_table_three_sentences_and_reports(tmp_path: Path, prepared: Prepared) -> None:
    done = prepared.run("audit", "demo", "--quick", "--limit", "1", "--threads", "1", "--out", str(tmp_path / "out"), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert max(map(len, done.stdout.splitlines()[:-2])) <= 80
    assert "…" not in done.stdout
    for words in (
        "smollm2-aware",
        "With the evaluation stated, the probe",
        "The probes gave no AUROC of the benchmarks against wildchat. In 0 of",  # one item gives none
        "On smollm2-aware",
    ):
        assert words in " ".join(done.stdout.split())
    assert "Next: audit compare" in done.stdout
    assert "1/2 smollm2-aware base: 2 transcripts" in done.stderr
    for name in ("smollm2-aware", "smollm2"):
        logs = [read_eval_log(info, header_only=True) for info in list_eval_logs(str(tmp_path / "out" / name / "logs"))]
        assert {log.status for log in logs} == {"success"}
        assert len(logs) == (6 if name == "smollm2-aware" else 4)
    assert (tmp_path / "out" / "smollm2-aware" / "report" / "index.html").is_file()
    words = shlex.split(done.stdout[done.stdout.index("Next: ") + len("Next: ") :])
    compared = prepared.run(*words, cwd=tmp_path)
    assert compared.returncode == 0, compared.stderr
    assert compared.stdout.count("AUROC against deployment traffic") == 2


@pytest.mark.parametrize("arguments", [["--limit", "0"], ["--limit", "13"], ["--measures", "nobody"]])
def test_invalid_demo_options_are_refused(arguments: list[str], tmp_path: Path) -> None:
    done = typed("audit", "demo", *arguments, "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
