"""SWE-bench Verified: resolve real issues of Python projects; hidden tests decide.

SWE-bench: Can Language Models Resolve Real-World GitHub Issues? Jimenez et al., ICLR 2024. https://arxiv.org/abs/2310.06770
Data: https://huggingface.co/datasets/princeton-nlp/SWE-bench_Verified (code MIT; issue texts of their repositories).

An item: "shelf.add() loses the last book when the shelf is full", with the repository; a patch must make the hidden tests pass.
(The example is ours; so are the six tiny repositories of the bundled set.)

    inspect eval tasks/swe_bench.py --model local/qwen-7b                                  agent in docker, the instances' own images
    inspect eval tasks/swe_bench.py --model local/smollm2 -T mode=patch -T source=swebench_verified.jsonl
    inspect eval tasks/swe_bench.py --model local/smollm2 -T source=bundled -T sandbox=local
"""

import re
from pathlib import Path
from typing import Any

from inspect_ai import Task, task
from inspect_ai.agent import react
from inspect_ai.dataset import Sample
from inspect_ai.scorer import CORRECT, INCORRECT, Score, Scorer, Target, accuracy, scorer, stderr
from inspect_ai.solver import Solver, TaskState, generate, prompt_template
from inspect_ai.tool import bash, text_editor
from inspect_ai.util import sandbox as sandbox_of

from nla.support.errors import ConfigError
from nla.support.rows import Row
from tasks._info import Role, TaskInfo
from tasks._measured import measured
from tasks._sandboxed import check_sandbox, run_limited
from tasks._shared import DataSource, Hub, dataset, text_field

BLURB = "SWE-bench, a benchmark that measures whether language models resolve issues of software projects."
REVISION = "c104f840cc67f8b6eec6f759ebc8b2693d585d4a"
ITEMS = DataSource(Hub("princeton-nlp/SWE-bench_Verified", REVISION, "test"), Path(__file__).parent / "data" / "swe_bench.jsonl")
PATCH = (
    "You maintain the project {repo}. Resolve this issue.\n\n{prompt}\n\n{listing}Say in short what is wrong and how you mend it. "
    "Then give the change as a unified diff against the repository's root, in one ```diff block."
)
AGENT = "The working directory holds the project. Resolve the issue by changing its files; do not change tests. Submit when you are done."
_FENCE = re.compile(r"```(?:diff|patch)?\s*\n(.*?)```", re.DOTALL)
INFO = TaskInfo(
    title="SWE-bench Verified: resolve real issues of Python projects; hidden tests decide",
    blurb=BLURB,
    role=Role.BENCHMARK,
    data=ITEMS,
    licence="code MIT; issue texts of their repositories",
)


@task
@measured(INFO)
def swe_bench(source: str = "hub", mode: str | None = None, sandbox: str = "docker", messages: int = 60) -> Task:
    """Issues to resolve, by an agent or in one turn.

    Args:
        source: hub, bundled, or a file with columns instance_id, repo, problem_statement and patch.
        mode: agent (bash and an editor in a sandbox; the default on the hub's instances, which need the package inspect-evals and its
            images) or patch (one turn, the model writes a diff; the default elsewhere).
        sandbox: docker, or local, where the model's code runs as you. A patch to a repository that is not here is not run.
        messages: length of the agent's conversation at which it is stopped.
    """
    mode = mode or ("agent" if source == "hub" else "patch")
    if mode not in ("agent", "patch"):
        raise ConfigError(f"mode={mode} makes no sense; give agent or patch.")
    if mode == "agent" and source != "bundled":
        return _inspect_evals_task(messages)
    rows = ITEMS.rows(source)
    here = all("files" in row for row in rows)
    solver: list[Solver] | Any = [prompt_template(PATCH), generate()]
    if mode == "agent":
        solver = react(prompt=AGENT, tools=[bash(timeout=60), text_editor(timeout=60)])
    return Task(
        dataset=dataset([_sample(row, mode) for row in rows], "swe_bench", source),
        solver=solver,
        scorer=hidden_tests(mode),
        sandbox=check_sandbox(sandbox) if here else None,
        message_limit=messages,
        version="1-A",
    )


def _inspect_evals_task(messages: int) -> Task:
    """The real instances with their images and tests, as inspect_evals runs them."""
    try:
        from inspect_evals.swe_bench import swe_bench as real
    except ImportError as ex:
        raise ConfigError(
            f"SWE-bench's instances run with the package inspect-evals[swe-bench], which is not installed here ({ex}); install it, or take "
            "-T mode=patch, or -T source=bundled."
        ) from ex
    check_sandbox("docker")
    made: Task = real(revision=REVISION)
    made.message_limit = messages
    return made


def _sample(row: Row, mode: str) -> Sample:
    files: dict[str, str] = dict(row.get("files") or {})
    listing = "".join(f"File {name}:\n```\n{content}```\n\n" for name, content in files.items())
    metadata = {"repo": str(row.get("repo", "")), "patch": str(row.get("patch", "")), "tests": row.get("tests"), "listing": listing}
    return Sample(id=text_field(row, "instance_id"), input=text_field(row, "problem_statement"), files=files or None, metadata=metadata)


@scorer(metrics=[accuracy(), stderr()])
def hidden_tests(mode: str) -> Scorer:
    """Whether the hidden tests pass after the change; unscored where the repository is not here (the patch's form is recorded)."""

    async def score(state: TaskState, target: Target) -> Score:
        patch = patch_of(state.output.completion) if mode == "patch" else ""
        told = {"well_formed": bool(touched(patch)), "same_files": touched(patch) == touched(state.metadata["patch"])}
        if not state.metadata["tests"]:
            return Score.unscored(reason="the repository is not here", metadata=told)
        if mode == "patch":
            await sandbox_of().write_file("change.diff", patch)
            applied = await run_limited(["git", "apply", "--recount", "change.diff"])
            if not patch.strip() or not applied.success:
                return Score(value=INCORRECT, answer=patch, explanation=f"the patch does not apply: {applied.stderr[:500]}", metadata=told)
        for name, content in state.metadata["tests"].items():
            await sandbox_of().write_file(name, content)
        done = await run_limited(["python3", "-m", "unittest", "discover", "-p", "hidden_*.py"], 20)
        passed = done.success and "Ran 0 tests" not in done.stderr
        return Score(value=CORRECT if passed else INCORRECT, answer=patch, explanation=done.stderr[-2_000:], metadata=told)

    return score


def patch_of(reply: str) -> str:
    """The unified diff in a reply: its last fenced block that holds one, else all from the first `---` line."""
    fenced = [block for block in _FENCE.findall(reply) if touched(block)]
    if fenced:
        return str(fenced[-1])
    start = re.search(r"^--- ", reply, re.MULTILINE)
    return reply[start.start() :].rstrip() + "\n" if start else ""


def touched(patch: str) -> set[str]:
    """Names of the files that a unified diff changes; empty where it is none."""
    if not re.search(r"^@@ .*@@", patch, re.MULTILINE):
        return set()
    return {name for name in re.findall(r"^\+\+\+ (?:b/)?(\S+)", patch, re.MULTILINE) if name != "/dev/null"}
