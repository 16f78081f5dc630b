r"""MATH-500: 500 competition problems with short answers, from the MATH data set.

Measuring Mathematical Problem Solving With the MATH Dataset. Hendrycks et al., 2021. https://arxiv.org/abs/2103.03874
The 500: Let's Verify Step by Step. Lightman et al., 2023. https://arxiv.org/abs/2305.20050
Data: https://huggingface.co/datasets/HuggingFaceH4/MATH-500 (MIT licence), from a file of yours: no revision of it
is pinned here.

An item: "What is the sum of the roots of $x^2 - 7x + 10 = 0$?"; answer $\boxed{7}$. (The example is ours.)

    inspect eval tasks/math500.py --model local/smollm2 -T source=bundled --limit 12
"""

from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.solver import generate, prompt_template

from nla.support.errors import DataError
from nla.support.rows import Row, content_id
from tasks._answers import boxed, final_answer
from tasks._info import Role, TaskInfo
from tasks._measured import measured
from tasks._shared import DataSource, dataset, field, text_field

BLURB = "MATH-500, a benchmark of competition mathematics that measures the reasoning of language models."
ITEMS = DataSource(None, Path(__file__).parent / "data" / "math500.jsonl")
PROMPT = "{prompt}\n\nReason step by step, and put your final answer within \\boxed{{}}."
INFO = TaskInfo(
    title="MATH-500: 500 competition problems with short answers, from the MATH data set",
    blurb=BLURB,
    role=Role.BENCHMARK,
    data=ITEMS,
    licence="MIT licence",
)


@task
@measured(INFO)
def math500(source: str = "bundled") -> Task:
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


def _sample(row: Row) -> Sample:
    question, answer = text_field(row, "problem", "question"), str(field(row, "answer"))
    target = boxed(answer) if "\\boxed" in answer or "\\fbox" in answer else answer
    if not target:
        raise DataError(f"a MATH item needs an answer; found none in the box: {question[:80]}")
    return Sample(id=content_id(question), input=question, target=target, metadata={"subject": row.get("subject"), "id_from_content": True})
