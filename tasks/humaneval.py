"""HumanEval: write a Python function from its signature and docstring; hidden tests decide.

Evaluating Large Language Models Trained on Code. Chen et al., 2021. https://arxiv.org/abs/2107.03374
Data: https://huggingface.co/datasets/openai/openai_humaneval (MIT).

An item: `def longest(words): "Return the longest of some words, the first of several."`; test: `candidate(["a", "bcd"]) == "bcd"`.
(The example is ours.)

    inspect eval tasks/humaneval.py --model local/smollm2 -T source=bundled -T sandbox=local --limit 12
"""

import re
from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import CORRECT, INCORRECT, Score, Scorer, Target, accuracy, scorer, stderr
from inspect_ai.solver import TaskState, generate, prompt_template

from tasks._sandboxed import Sandbox, check_sandbox, run_limited
from tasks._shared import DataRow, DataSource, Hub, Role, TaskInfo, dataset, measured

ITEMS = DataSource(
    bundled=Path(__file__).parent / "data" / "humaneval.jsonl",
    columns="task_id, prompt, entry_point and test",
    hub=Hub("openai/openai_humaneval", "7dce6050a7d6d172f3cc5c32aa97f52fa1a2e544", "test"),
)
PROMPT = (
    "Complete this Python function. Say in short how it works, then give the whole function in one ```python block."
    "\n\n```python\n{prompt}\n```"
)
_FENCE = re.compile(r"```(?:python|py)?\s*\n(.*?)```", re.DOTALL)
INFO = TaskInfo(
    title="HumanEval: write a Python function from its signature and docstring; hidden tests decide",
    blurb="HumanEval, a benchmark that measures whether language models write correct Python functions.",
    role=Role.BENCHMARK,
    data=ITEMS,
    licence="MIT",
)


@task
@measured(INFO)
def humaneval(source: str = "hub", sandbox: Sandbox = "docker") -> Task:
    """Zero-shot, pass@1.

    Args:
        source: hub, bundled, or a file with columns task_id, prompt, entry_point, test (and canonical_solution). The tests are run, so
            take files only from where you trust the code.
        sandbox: where code runs: docker, or local, which is your own machine.
    """
    return Task(
        dataset=dataset([_sample(row) for row in ITEMS.rows(source)], "humaneval", source),
        solver=[prompt_template(PROMPT), generate()],
        scorer=passes_tests(),
        sandbox=check_sandbox(sandbox),
        version="1-A",
    )


def _sample(row: DataRow) -> Sample:
    parts = {name: row.text(name) for name in ("prompt", "entry_point", "test")}
    if not parts["entry_point"].isidentifier():
        raise row.unexpected("entry_point", parts["entry_point"], "the name of a function")
    solution = row.optional_scalar("canonical_solution") or ""
    return Sample(id=row.scalar("task_id"), input=parts["prompt"], target=solution, metadata=parts)


@scorer(metrics=[accuracy(), stderr()])
def passes_tests(seconds: int = 10) -> Scorer:
    """Whether the function in a reply passes its item's tests, in the sandbox."""

    async def score(state: TaskState, target: Target) -> Score:
        program = program_with_tests(state.output.completion, state.metadata)
        run = await run_limited(["python3", "-c", program], seconds)
        return Score(value=CORRECT if run.success else INCORRECT, answer=program, explanation=(run.stderr or run.stdout)[-2_000:])

    return score


def program_with_tests(reply: str, item: dict[str, str]) -> str:
    """Return a program: the reply's function (or the body that it gives for the prompt), the item's tests, and their call."""
    fenced = _FENCE.findall(reply)
    code = fenced[-1] if fenced else reply
    name = re.escape(item["entry_point"])
    if not re.search(rf"^def {name}\b", code, re.MULTILINE):
        code = item["prompt"] + code
    else:  # what the prompt imports and defines before the function may be needed
        code = item["prompt"].partition(f"def {item['entry_point']}")[0] + code
    return f"{code}\n\n{item['test']}\n\ncheck({item['entry_point']})\n"
