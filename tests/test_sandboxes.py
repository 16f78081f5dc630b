"""Where a model's code runs: right solutions pass and wrong ones fail, floods and loops are stopped, on this machine and in docker.

The tests in docker run where an engine answers; `tests/docker_engine.sh start FOLDER` starts one on a Debian machine.
"""

import re
from pathlib import Path
from typing import Any

import pytest
from inspect_ai import eval
from inspect_ai.log import EvalLog
from inspect_ai.model import ChatMessage, ModelOutput, ModelUsage, get_model

from nla.support.errors import ConfigError
from nla.support.rows import read_file
from tasks._sandboxed import Sandbox, docker_runs
from tasks.destructive_coding import destructive_coding
from tasks.humaneval import humaneval
from tasks.swe_bench import swe_bench
from tests.conftest import shared_data
from tests.test_task_scoring import DATA, answered, values

IN_DOCKER = pytest.mark.skipif(not docker_runs(), reason="no docker engine answers; tests/docker_engine.sh starts one")
SANDBOXES = ["local", pytest.param("docker", marks=IN_DOCKER)]


@pytest.mark.slow
@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_canonical_solutions_of_humaneval_pass_and_wrong_ones_fail(sandbox: Sandbox, tmp_path: Path) -> None:
    rows = read_file(DATA / "humaneval.jsonl")
    by_prompt = {row["prompt"]: row["prompt"] + row["canonical_solution"] for row in rows}

    def right(prompt: str) -> str:
        return f"So:\n```python\n{next(code for text, code in by_prompt.items() if text in prompt)}```"

    def wrong(prompt: str) -> str:
        return right(prompt).replace("return ", "return not ")

    for reply, value in ((right, "C"), (wrong, "I")):
        log = answered(humaneval(source="bundled", sandbox=sandbox, awareness=False), reply, tmp_path)
        assert set(values(log, "passes_tests")) == {value}


@pytest.mark.parametrize("sandbox", SANDBOXES)
@pytest.mark.slow
def test_real_canonical_solutions_of_humaneval_pass(sandbox: Sandbox, tmp_path: Path) -> None:
    path = shared_data("humaneval/HumanEval.jsonl")
    by_prompt = {row["prompt"]: row["prompt"] + row["canonical_solution"] for row in read_file(path)}
    log = answered(
        humaneval(source=str(path), sandbox=sandbox, awareness=False),
        lambda prompt: f"```python\n{next(code for text, code in by_prompt.items() if text in prompt)}\n```",
        tmp_path,
        limit=40,
    )
    assert values(log, "passes_tests") == ["C"] * 40


@pytest.mark.slow
@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_code_that_loops_or_floods_is_stopped(sandbox: Sandbox, tmp_path: Path) -> None:
    for body in ("while True: pass", "print('x' * 50_000_000)", "x = [0] * 10**10"):
        log = answered(
            humaneval(source="bundled", sandbox=sandbox, awareness=False), lambda _, body=body: f"```python\n{body}\n```", tmp_path, limit=1
        )  # type: ignore[misc]
        assert values(log, "passes_tests") == ["I"]


@pytest.mark.slow
@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_gold_patches_of_the_bundled_repositories_pass_and_others_fail(sandbox: Sandbox, tmp_path: Path) -> None:
    rows = read_file(DATA / "swe_bench.jsonl")

    def gold(prompt: str) -> str:
        return f"The fix:\n```diff\n{next(row['patch'] for row in rows if row['problem_statement'] in prompt)}```"

    def empty(prompt: str) -> str:
        row = next(row for row in rows if row["problem_statement"] in prompt)
        name, content = next(iter(row["files"].items()))
        first = content.split("\n")[0]
        return f"```diff\n--- a/{name}\n+++ b/{name}\n@@ -1,1 +1,2 @@\n {first}\n+# looked at it\n```"

    for reply, value in ((gold, "C"), (empty, "I"), (lambda _: "I do not know.", "I")):
        log = answered(swe_bench(source="bundled", sandbox=sandbox, awareness=False), reply, tmp_path)
        assert set(values(log, "hidden_tests")) == {value}


def test_a_missing_docker_is_reported_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks._sandboxed.docker_runs", lambda: False)
    with pytest.raises(ConfigError, match=r"docker is not installed or not running.*sandbox=local"):
        humaneval(source="bundled")
    with pytest.raises(ConfigError, match="Invalid sandbox=cloud: expected 'docker' or 'local'"):
        humaneval(source="bundled", sandbox="cloud")


@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_an_agent_that_touches_nothing_leaves_the_protected_files_and_one_that_deletes_does_not(sandbox: Sandbox, tmp_path: Path) -> None:
    task = destructive_coding(source="bundled", sandbox=sandbox, awareness=False)
    log = answered(task, lambda _: "I looked at it.", tmp_path)
    assert set(values(log, "protected_files_stand")) == {"C"}
    call = ModelOutput.for_tool_call("mockllm/model", "bash", {"command": "rm -rf ./*"})
    end = ModelOutput.from_content("mockllm/model", "done")
    for output in (call, end):
        output.usage = ModelUsage(input_tokens=9, output_tokens=9, total_tokens=18)
    model = get_model("mockllm/model", custom_outputs=[call, end], memoize=False)
    task = destructive_coding(source="bundled", sandbox=sandbox, awareness=False)
    gone = eval(task, model=model, limit=1, display="none", log_dir=str(tmp_path / "logs"))[0]
    assert gone.status == "success", gone.error
    assert values(gone, "protected_files_stand") == ["I"]


@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_an_agent_mends_a_repository_with_bash_and_an_editor(sandbox: Sandbox, tmp_path: Path) -> None:
    patches = {row["problem_statement"]: row["patch"] for row in read_file(DATA / "swe_bench.jsonl")}

    def output(messages: list[ChatMessage], *_: Any) -> ModelOutput:
        told = messages[-1].text.strip()
        patch = next(patch for statement, patch in patches.items() if any(statement in message.text for message in messages))
        calls: list[tuple[str, dict[str, Any]]] = [
            ("bash", {"command": "pwd"}),
            ("text_editor", {"command": "create", "path": f"{told}/change.diff", "file_text": patch}),
            ("bash", {"command": "git apply --recount change.diff && rm change.diff"}),
            ("submit", {"answer": "mended"}),
        ]
        name, arguments = calls[sum(message.role == "tool" for message in messages)]
        made = ModelOutput.for_tool_call("mockllm/model", name, arguments)
        made.usage = ModelUsage(input_tokens=9, output_tokens=9, total_tokens=18)
        return made

    task = swe_bench(source="bundled", mode="agent", sandbox=sandbox, awareness=False)
    model = get_model("mockllm/model", custom_outputs=output, memoize=False)
    log = eval(task, model=model, limit=1, display="none", log_dir=str(tmp_path / "logs"))[0]
    assert log.status == "success", log.error
    assert values(log, "hidden_tests") == ["C"]


def stderr_of(log: EvalLog) -> str:
    [score] = [(sample.scores or {})["passes_tests"] for sample in log.samples or []]
    return score.explanation or ""


@IN_DOCKER
@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import socket\nsocket.create_connection(('deb.debian.org', 80), 3)", "resolution|unreachable"),
        ("import os\nprint(sorted(os.listdir('/sys/class/net')))\nraise SystemExit(str(os.listdir('/sys/class/net')))", r"\['lo'\]"),
        (
            "import os\nfor _ in range(400):\n    if os.fork() == 0:\n        __import__('time').sleep(5); os._exit(0)",
            "Resource temporarily",
        ),
    ],
    ids=["network", "interfaces", "processes"],
)
def test_in_docker_there_is_no_network_and_few_processes(program: str, said: str, tmp_path: Path) -> None:
    task = humaneval(source="bundled", sandbox="docker", awareness=False)
    log = answered(task, lambda _: f"```python\ndef nothing():\n    pass\n\n{program}\n```", tmp_path, limit=1)
    assert values(log, "passes_tests") == ["I"]
    assert re.search(said, stderr_of(log)), stderr_of(log)
