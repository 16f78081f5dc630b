r"""MATH-500: 500 competition problems with short answers, from the MATH data set.

Measuring Mathematical Problem Solving With the MATH Dataset. Hendrycks et al., 2021. https://arxiv.org/abs/2103.03874
The 500: Let's Verify Step by Step. Lightman et al., 2023. https://arxiv.org/abs/2305.20050
Data: https://huggingface.co/datasets/HuggingFaceH4/MATH-500 (MIT); give your copy of it, since no revision is pinned here.

An item: "What is the sum of the roots of $x^2 - 7x + 10 = 0$?"; answer $\boxed{7}$. (The example is ours.)

    inspect eval tasks/math500.py --model local/smollm2 -T source=bundled --limit 12
"""

from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.solver import generate, prompt_template

from tasks._answers import boxed, final_answer
from tasks._shared import DataRow, DataSource, Role, TaskInfo, content_id, dataset, measured

ITEMS = DataSource(bundled=Path(__file__).parent / "data" / "math500.jsonl", columns="problem (or question) and answer")
PROMPT = "{prompt}\n\nReason step by step, and put your final answer within \\boxed{{}}."
INFO = TaskInfo(
    title="MATH-500: 500 competition problems with short answers, from the MATH data set",
    blurb="MATH-500, a benchmark of competition mathematics that measures the reasoning of language models.",
    role=Role.BENCHMARK,
    data=ITEMS,
    licence="MIT",
)


@task
@measured(INFO)
def math500(source: str | None = None) -> Task:
    r"""Zero-shot, with reasoning; the last \boxed{} counts.

    Args:
        source: bundled, or a file with columns problem (or question) and answer, which is the answer itself or a solution that boxes it.
    """
    return Task(
        dataset=dataset([_sample(row) for row in ITEMS.rows(source)], "math500", source),
        solver=[prompt_template(PROMPT), generate()],
        scorer=final_answer(),
        version="1-A",
    )


def _sample(row: DataRow) -> Sample:
    question, answer = row.text("problem", "question"), row.scalar("answer")
    target = boxed(answer) if "\\boxed" in answer or "\\fbox" in answer else answer
    if not target:
        raise row.unexpected("answer", answer, "an answer, or a solution with the answer in \\boxed{}")
    metadata = {"subject": row.optional_scalar("subject"), "id_from_content": True}
    return Sample(id=content_id(question), input=question, target=target, metadata=metadata)
