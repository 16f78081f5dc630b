"""Humanity's Last Exam: expert questions at the frontier of human knowledge; only those without a picture.

Humanity's Last Exam. Phan et al., 2025. https://arxiv.org/abs/2501.14249
Data: https://huggingface.co/datasets/cais/hle (MIT licence, gated).

An item: "How many strokes does the traditional character for 'dragon' have?"; answer 16. (The example is ours.)

    inspect eval tasks/hle.py --model local/llama --limit 100
"""

from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.solver import generate, prompt_template

from nla.support.rows import Row, content_id
from tasks._answers import final_answer
from tasks._info import Role, TaskInfo
from tasks._measured import measured
from tasks._shared import DataSource, Hub, dataset, field, text_field

BLURB = "Humanity's Last Exam, a benchmark of expert questions that measures the limits of language models."
REVISION = "5a81a4c7271a2a2a312b9a690f0c2fde837e4c29"
ITEMS = DataSource(Hub("cais/hle", REVISION, "test"), Path(__file__).parent / "data" / "hle.jsonl")
PROMPT = "{prompt}\n\nExplain your answer. Then write it on a last line of its own, after ANSWER:"
INFO = TaskInfo(
    title="Humanity's Last Exam: expert questions at the frontier of human knowledge; only those without a picture",
    blurb=BLURB,
    role=Role.BENCHMARK,
    data=ITEMS,
    licence="MIT licence, gated",
)


@task
@measured(INFO)
def hle(source: str = "hub", category: str | None = None) -> Task:
    """Zero-shot. What stands after ANSWER: must equal the answer but for case, spaces and LaTeX's dressing; the paper uses a model as
    judge, which accepts more.

    Args:
        source: hub, bundled, or a file with columns question, answer and image.
        category: only this one, e.g. Math.
    """
    rows = [row for row in ITEMS.rows(source) if not row.get("image") and category in (None, row.get("category"))]
    return Task(
        dataset=dataset([_sample(row) for row in rows], "hle", source),
        solver=[prompt_template(PROMPT), generate()],
        scorer=final_answer(),
        version="1-A",
    )


def _sample(row: Row) -> Sample:
    question, answer = text_field(row, "question"), str(field(row, "answer"))
    own_id = row.get("id")
    metadata = {"category": row.get("category"), "id_from_content": own_id is None}
    return Sample(id=str(own_id or content_id(question)), input=question, target=answer, metadata=metadata)
