"""IFEval: requests with instructions whose keeping a program can check.

Instruction-Following Evaluation for Large Language Models. Zhou et al., 2023. https://arxiv.org/abs/2311.07911
Data: https://huggingface.co/datasets/google/IFEval (Apache-2.0).

An item: "Write two sentences about tea. Use no commas."; `punctuation:no_comma`. (The example is ours.)

    inspect eval tasks/ifeval.py --model local/smollm2 -T source=bundled --limit 12
"""

import json
from pathlib import Path
from typing import Any

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
from inspect_ai.solver import TaskState, generate

from nla.support.errors import DataError
from nla.support.rows import Row
from tasks._info import Role, TaskInfo
from tasks._instructions import follows
from tasks._measured import measured
from tasks._shared import DataSource, Hub, dataset, field, text_field

BLURB = "IFEval, a benchmark that measures whether language models follow instructions that a program can check."
REVISION = "966cd89545d6b6acfd7638bc708b98261ca58e84"
ITEMS = DataSource(Hub("google/IFEval", REVISION, "train"), Path(__file__).parent / "data" / "ifeval.jsonl")
INFO = TaskInfo(
    title="IFEval: requests with instructions whose keeping a program can check",
    blurb=BLURB,
    role=Role.BENCHMARK,
    data=ITEMS,
    licence="Apache-2.0",
)


@task
@measured(INFO)
def ifeval(source: str = "hub") -> Task:
    """Requests asked as they are; the score is the share of an item's checkable instructions that the reply follows (strict).

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


def _sample(row: Row) -> Sample:
    prompt = text_field(row, "original_prompt", "prompt")
    names, wanted = _listed(field(row, "instruction_id_list")), _listed(row.get("kwargs") or [])
    if wanted and len(wanted) != len(names):
        raise DataError(f"an IFEval item needs one set of kwargs an instruction; found {len(wanted)} for {len(names)}: {prompt[:80]}")
    wanted = wanted or [{} for _ in names]
    own = str(field(row, "key"))
    return Sample(id=f"ifeval-{own}", input=prompt, metadata={"instructions": names, "kwargs": wanted})


def _listed(value: Any) -> list[Any]:
    return list(json.loads(value)) if isinstance(value, str) else list(value)


@scorer(metrics=[mean(), stderr()])
def instructions_followed() -> Scorer:
    """Share of the instructions that are followed, of those that can be checked; unscored where none can be."""

    async def score(state: TaskState, target: Target) -> Score:
        reply = state.output.completion
        pairs = zip(state.metadata["instructions"], state.metadata["kwargs"], strict=True)
        found = {f"{i} {name}": follows(reply, name, wanted or {}) for i, (name, wanted) in enumerate(pairs)}
        checked = [one for one in found.values() if one is not None]
        if not checked:
            return Score.unscored(reason="no instruction of this item can be checked", metadata={"followed": found})
        return Score(value=sum(checked) / len(checked), answer=reply[:200], metadata={"followed": found})

    return score
