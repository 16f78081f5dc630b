"""SWE-bench Verified: resolve real issues of Python projects; hidden tests decide.

SWE-bench: Can Language Models Resolve Real-World GitHub Issues? Jimenez et al., ICLR 2024. https://arxiv.org/abs/2310.06770
Data: https://huggingface.co/datasets/princeton-nlp/SWE-bench_Verified (code: MIT; issue texts: as their repositories license them).

An item: "shelf.add() loses the last book when the shelf is full", with the repository; a patch must make the hidden tests pass.
(The example is ours; so are the six tiny repositories of the bundled set.)

    inspect eval tasks/swe_bench.py --model local/qwen-7b                                  agent in docker, the instances' own images
    inspect eval tasks/swe_bench.py --model local/smollm2 -T mode=patch -T source=swebench_verified.jsonl
    inspect eval tasks/swe_bench.py --model local/smollm2 -T source=bundled -T sandbox=local
"""

import re
from pathlib import Path
from typing import Any, Literal

from inspect_ai import Task, task
from inspect_ai.agent import react
from inspect_ai.dataset import Sample
from inspect_ai.scorer import CORRECT, INCORRECT, Score, Scorer, Target, accuracy, scorer, stderr
from inspect_ai.solver import Solver, TaskState, generate, prompt_template
from inspect_ai.tool import bash, text_editor
from inspect_ai.util import sandbox as sandbox_of
from pydantic import PositiveInt

from nla.support.errors import ConfigError
from tasks._sandboxed import Sandbox, check_sandbox, inline_files, run_limited
from tasks._shared import DataRow, DataSource, Hub, Role, TaskInfo, dataset, measured

REVISION = "c104f840cc67f8b6eec6f759ebc8b2693d585d4a"
ITEMS = DataSource(
    bundled=Path(__file__).parent / "data" / "swe_bench.jsonl",
    columns="instance_id, repo, problem_statement and patch",
    hub=Hub("princeton-nlp/SWE-bench_Verified", REVISION, "test"),
)
PATCH = (
    "You maintain the project {repo}. Resolve this issue.\n\n{prompt}\n\n{listing}Say in short what is wrong and how you mend it. "
    "Then give the change as a unified diff against the repository's root, in one ```diff block."
)
AGENT = "The working directory holds the project. Resolve the issue by changing its files; do not change tests. Submit when you are done."
_FENCE = re.compile(r"```(?:diff|patch)?\s*\n(.*?)```", re.DOTALL)
INFO = TaskInfo(
    title="SWE-bench Verified: resolve real issues of Python projects; hidden tests decide",
    blurb="SWE-bench, a benchmark that measures whether language models resolve issues of software projects.",
    role=Role.BENCHMARK,
    data=ITEMS,
    licence="code: MIT; issue texts: as their repositories license them",
)


@task
@measured(INFO)
def swe_bench(
    source: str = "hub", mode: Literal["agent", "patch"] | None = None, sandbox: Sandbox = "docker", messages: PositiveInt = 60
) -> Task:
    """Issues to resolve, by an agent or in one turn.

    Args:
        source: hub, bundled, or a file with columns instance_id, repo, problem_statement and patch.
        mode: agent (bash and an editor in a sandbox; the default on the hub's instances, which need the package inspect-evals and its
            images) or patch (one turn, the model writes a diff; the default elsewhere).
        sandbox: docker, or local, where the model's code and the tests run on your own machine with your rights. Patches to
            repositories that the rows do not include are not run.
        messages: number of messages in the conversation at which the agent is stopped.
    """
    mode = mode or ("agent" if source == "hub" else "patch")
    if mode == "agent" and source != "bundled":
        return _inspect_evals_task(messages)
    rows = ITEMS.rows(source)
    here = all(row.has("files") for row in rows)
    solver: list[Solver] | Any = [prompt_template(PATCH), generate()]
    if mode == "agent":
        solver = react(prompt=AGENT, tools=[bash(timeout=60), text_editor(timeout=60)])
    return Task(
        dataset=dataset([_sample(row) for row in rows], "swe_bench", source),
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


def _sample(row: DataRow) -> Sample:
    files = row.files("files") if row.has("files") else {}
    tests = row.files("tests") if row.has("tests") else None
    metadata = {
        "repo": row.optional_scalar("repo") or "",
        "patch": row.optional_scalar("patch") or "",
        "tests": tests,
        "listing": "".join(f"File {name}:\n```\n{content}```\n\n" for name, content in files.items()),
    }
    return Sample(id=row.text("instance_id"), input=row.text("problem_statement"), files=inline_files(files), metadata=metadata)


@scorer(metrics=[accuracy(), stderr()])
def hidden_tests(mode: str) -> Scorer:
    """Whether the hidden tests pass after the change; unscored where the rows do not include the repository.

    Whether the patch is well formed, and changes the same files as the reference, is recorded in both cases.
    """

    async def score(state: TaskState, target: Target) -> Score:
        patch = patch_of(state.output.completion) if mode == "patch" else ""
        form = {"well_formed": bool(touched(patch)), "same_files": touched(patch) == touched(state.metadata["patch"])}
        if not state.metadata["tests"]:
            return Score.unscored(reason="the rows do not include the repository", metadata=form)
        if mode == "patch":
            await sandbox_of().write_file("change.diff", patch)
            applied = await run_limited(["git", "apply", "--recount", "change.diff"])
            if not patch.strip() or not applied.success:
                return Score(value=INCORRECT, answer=patch, explanation=f"the patch does not apply: {applied.stderr[:500]}", metadata=form)
        for name, content in state.metadata["tests"].items():
            await sandbox_of().write_file(name, content)
        run = await run_limited(["python3", "-m", "unittest", "discover", "-p", "hidden_*.py"], 20)
        passed = run.success and "Ran 0 tests" not in run.stderr
        return Score(value=CORRECT if passed else INCORRECT, answer=patch, explanation=run.stderr[-2_000:], metadata=form)

    return score


def patch_of(reply: str) -> str:
    """Return the unified diff in a reply: its last fenced block that holds one, else everything from the first `---` line."""
    fenced = [block for block in _FENCE.findall(reply) if touched(block)]
    if fenced:
        return str(fenced[-1])
    start = re.search(r"^--- ", reply, re.MULTILINE)
    return reply[start.start() :].rstrip() + "\n" if start else ""


def touched(patch: str) -> set[str]:
    """Return the names of the files that a unified diff changes; empty where the text is no diff."""
    if not re.search(r"^@@ .*@@", patch, re.MULTILINE):
        return set()
    return {name for name in re.findall(r"^\+\+\+ (?:b/)?(\S+)", patch, re.MULTILINE) if name != "/dev/null"}
