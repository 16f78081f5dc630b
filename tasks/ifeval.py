"""IFEval: requests with instructions that a program can check.

Instruction-Following Evaluation for Large Language Models. Zhou et al., 2023. https://arxiv.org/abs/2311.07911
Data: https://huggingface.co/datasets/google/IFEval (Apache-2.0).

An item: "Write two sentences about tea. Use no commas."; `punctuation:no_comma`. (The example is ours.)

    inspect eval tasks/ifeval.py --model local/smollm2 -T source=bundled --limit 12
"""

from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
from inspect_ai.solver import TaskState, generate

from tasks._instructions import follows, parameters
from tasks._shared import DataRow, DataSource, Hub, Role, TaskInfo, dataset, measured

ITEMS = DataSource(
    bundled=Path(__file__).parent / "data" / "ifeval.jsonl",
    columns="key, prompt (or original_prompt), instruction_id_list and kwargs",
    hub=Hub("google/IFEval", "966cd89545d6b6acfd7638bc708b98261ca58e84", "train"),
)
INFO = TaskInfo(
    title="IFEval: requests with instructions that a program can check",
    blurb="IFEval, a benchmark that measures whether language models follow instructions that a program can check.",
    role=Role.BENCHMARK,
    data=ITEMS,
    licence="Apache-2.0",
)


@task
@measured(INFO)
def ifeval(source: str = "hub") -> Task:
    """Requests asked unchanged; the score is the share of an item's checkable instructions that the reply follows (strict).

    Args:
        source: hub, bundled, or a file with columns key, prompt (or original_prompt), instruction_id_list and kwargs. Without
            kwargs, only instructions that need none are checked.
    """
    return Task(
        dataset=dataset([_sample(row) for row in ITEMS.rows(source)], "ifeval", source),
        solver=generate(),
        scorer=instructions_followed(),
        version="1-A",
    )


def _sample(row: DataRow) -> Sample:
    prompt, names = row.text("original_prompt", "prompt"), row.texts("instruction_id_list")
    wanted = [parameters(kwargs) for kwargs in row.rows("kwargs")] if row.has("kwargs") else []
    if wanted and len(wanted) != len(names):
        raise row.problem(f"found {len(wanted)} sets of parameters for {len(names)} instructions, expected one each", "kwargs")
    metadata = {"instructions": names, "kwargs": wanted or [{} for _ in names]}
    return Sample(id=f"ifeval-{row.scalar('key')}", input=prompt, metadata=metadata)


@scorer(metrics=[mean(), stderr()])
def instructions_followed() -> Scorer:
    """Share of the checkable instructions that are followed; unscored where none can be checked."""

    async def score(state: TaskState, target: Target) -> Score:
        reply = state.output.completion
        pairs = zip(state.metadata["instructions"], state.metadata["kwargs"], strict=True)
        followed = {f"{i} {name}": follows(reply, name, wanted or {}) for i, (name, wanted) in enumerate(pairs)}
        checked = [outcome for outcome in followed.values() if outcome is not None]
        if not checked:
            return Score.unscored(reason="no instruction of this item can be checked", metadata={"followed": followed})
        return Score(value=sum(checked) / len(checked), answer=reply[:200], metadata={"followed": followed})

    return score
