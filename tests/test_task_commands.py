"""Tasks of one's own and of others: `audit new-task`, `audit tasks`, `audit data fetch`, wrapping any task, scoring any log."""

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from inspect_ai import eval
from inspect_ai.log import read_eval_log
from typer.testing import CliRunner

from audit.cli import app
from audit.running.rescore import score_logs
from audit.running.rescore_config import RescoreConfig
from audit.running.task_list import fetch_data, new_task, task_listings
from graders.scorers import scorer_name
from nla.instrument import Instrument
from nla.support.errors import ConfigError, DataError, FetchError, ModelError
from tasks._info import Role
from tasks.any import any as wrapped
from tasks.gsm8k import gsm8k
from tests.prepared import Prepared

Folder = Callable[[str], Path]
OWN_TASK = """
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes
from inspect_ai.solver import generate

@task
def own(word: str = "hi"):
    return Task(dataset=[Sample(id=i, input=f"{word} {i}", target="x") for i in range(3)], solver=generate(), scorer=includes())
"""


@pytest.mark.slow
def test_a_new_task_runs_from_the_command_line(tmp_path: Path, tiny_folder: Folder, prepared: Prepared) -> None:
    done = CliRunner().invoke(app, ["new-task", "colours", "--folder", str(tmp_path / "tasks")])
    assert done.exit_code == 0, done.output
    command = ["inspect", "eval", "tasks/colours.py", "--model", f"local/{tiny_folder('llama')}", "-M", "dtype=float32", "--limit", "2"]
    options = ("--display", "none", "--max-tokens", "8", "-T", "tokens=3", "-T", "source=bundled")
    run = prepared.run(*command, *options, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    [log] = [read_eval_log(str(path)) for path in (tmp_path / "logs").glob("*.eval")]
    assert log.status == "success"
    assert {"includes", "nla_awareness", "verbalized_awareness"} <= {score.name for score in (log.results.scores if log.results else [])}
    spec = importlib.util.spec_from_file_location("colours", tmp_path / "tasks" / "colours.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert len(module.colours(source="bundled").dataset) == 12
    with pytest.raises(ConfigError, match="exists already"):
        new_task("colours", tmp_path / "tasks")
    for name in ("Colours", "2colours", "class", "a-b", ""):
        with pytest.raises(ConfigError, match="cannot be a task's name"):
            new_task(name, tmp_path / "tasks")


def test_a_new_task_that_was_killed_between_its_two_files_is_ended_by_the_same_command(tmp_path: Path) -> None:
    code, data = new_task("colours", tmp_path)
    code.unlink()
    assert new_task("colours", tmp_path) == [code, data]
    code.unlink()
    data.write_text(data.read_text() + '{"question": "mine", "answer": "1"}\n')
    with pytest.raises(ConfigError, match=r"colours\.jsonl exists already"):
        new_task("colours", tmp_path)


def test_every_task_is_listed_with_its_data() -> None:
    listings = {listing.name: listing for listing in task_listings()}
    assert len(listings) > 20
    assert listings["mmlu"].hub == "cais/mmlu@c30699e"
    assert listings["mmlu"].bundled == 40
    assert listings["wildchat"].role is Role.DEPLOYMENT_CONTROL
    assert listings["gsm8k"].licence == "MIT"
    assert listings["gpqa"].state == "a file that you give, or bundled"
    assert listings["factual_honesty"].state == "bundled: the project's own scenarios"
    assert listings["any"].origin is None
    done = CliRunner().invoke(app, ["tasks"], env={"COLUMNS": "300"})
    assert done.exit_code == 0
    assert all(name in done.output for name in listings)


def test_hub_data_are_fetched_by_task_and_refusals_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[tuple[Any, ...]] = []

    def load(path: str, name: str | None, *, split: str, revision: str) -> list[dict[str, str]]:
        asked.append((path, name, split, revision))
        return [{"question": "q"}] * 3

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert fetch_data("gsm8k") == [("openai/gsm8k@cc7b047b6e5bb11b4f1af84efc572db110a51b3c", 3)]
    assert asked == [("openai/gsm8k", "main", "test", "cc7b047b6e5bb11b4f1af84efc572db110a51b3c")]
    with pytest.raises(ConfigError, match="not pinned on the hub"):
        fetch_data("gpqa")
    with pytest.raises(ConfigError, match="There is no task 'nothing'"):
        fetch_data("nothing")
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: (_ for _ in ()).throw(ConnectionError("gated")))
    with pytest.raises(FetchError, match="gated"):
        fetch_data("gsm8k")


def test_any_task_gets_the_awareness_scorers_beside_its_own(tmp_path: Path, tiny_folder: Folder) -> None:
    path = tmp_path / "own.py"
    path.write_text(OWN_TASK)
    task = wrapped(task=f"{path}@own", args='{"word": "yo"}', role="deployment control", tokens=3)
    log = eval(
        task, model=f"local/{tiny_folder('llama')}", model_args={"dtype": "float32"}, max_tokens=8, display="none", log_dir=str(tmp_path)
    )[0]
    assert log.status == "success", log.error
    assert [str(sample.input) for sample in log.samples or []] == ["yo 0", "yo 1", "yo 2"]
    assert set((log.samples or [])[0].scores or {}) == {"includes", *(scorer_name(measure) for measure in Instrument().measures)}
    assert (log.eval.metadata or {})["role"] == "deployment control"
    with pytest.raises(ConfigError, match="cannot be loaded"):
        wrapped(task=str(tmp_path / "nothing.py@own"))


def test_a_task_of_inspect_evals_is_wrapped() -> None:
    task = wrapped(task="inspect_evals/agentic_misalignment", tokens=3)
    assert len(task.scorer or []) == 1 + len(Instrument().measures)


def test_finished_logs_get_awareness_and_stay_as_they_are(tmp_path: Path, tiny_folder: Folder) -> None:
    model = tiny_folder("llama")
    eval(
        gsm8k(source="bundled", awareness=False), model=f"local/{model}", model_args={"dtype": "float32"}, limit=2, max_tokens=8,
        display="none", log_dir=str(tmp_path / "logs"),
    )  # fmt: skip
    [before] = list((tmp_path / "logs").glob("*.eval"))
    content = before.read_bytes()
    [scored] = score_logs([str(tmp_path / "logs")], tmp_path / "audited", RescoreConfig(tokens=3, verbalizer="logit_lens"))
    assert before.read_bytes() == content
    log = read_eval_log(str(scored))
    scores = (log.samples or [])[0].scores or {}
    assert set(scores) == {"match", *(scorer_name(measure) for measure in Instrument().measures)}
    assert (scores["nla_awareness"].metadata or {})["k"] <= 3
    stamp = scored.stat().st_mtime_ns
    assert score_logs([str(before)], tmp_path / "audited", RescoreConfig(tokens=3, verbalizer="logit_lens")) == [scored]
    assert scored.stat().st_mtime_ns == stamp  # what is done is not done again
    with pytest.raises(DataError, match="has awareness scores already"):
        score_logs([str(scored)], tmp_path / "again", RescoreConfig(verbalizer="logit_lens"))
    with pytest.raises(DataError, match="does not exist"):
        score_logs([str(tmp_path / "nowhere")], tmp_path / "x", RescoreConfig())


def test_a_log_whose_weights_nobody_knows_or_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    import inspect_ai.model as models

    output = models.ModelOutput.from_content("mockllm/model", "hi")
    output.usage = models.ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
    mock = models.get_model("mockllm/model", custom_outputs=[output], memoize=False)
    log = eval(gsm8k(source="bundled", awareness=False), model=mock, limit=1, display="none", log_dir=str(tmp_path))[0]
    with pytest.raises(ModelError, match="give --model"):
        score_logs([log.location], tmp_path / "out", RescoreConfig(verbalizer="logit_lens"))
    broken = read_eval_log(log.location)
    broken.status = "started"
    from inspect_ai.log import write_eval_log

    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    write_eval_log(broken, str(tmp_path / "cut.eval"))
    with pytest.raises(DataError, match="no finished log"):
        score_logs([str(tmp_path / "cut.eval")], tmp_path / "out", RescoreConfig(verbalizer="logit_lens"))
    assert list((tmp_path / "out").glob("*.eval")) == []


def test_a_misspelt_task_is_refused_before_the_imports_that_take_seconds(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from audit.cli import main\n"
        "sys.argv = ['audit', 'run', '--model', 'local/smollm2', '--tasks', 'mmlu,wildhcat']\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    print({'torch', 'inspect_ai'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (2, "set()\n")
    assert "Did you mean 'wildchat'?" in done.stderr
    assert list(tmp_path.iterdir()) == []
