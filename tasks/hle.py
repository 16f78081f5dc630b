"""Humanity's Last Exam: expert questions at the frontier of human knowledge; only those without a picture.

Humanity's Last Exam. Phan et al., 2025. https://arxiv.org/abs/2501.14249
Data: https://huggingface.co/datasets/cais/hle (MIT, gated: accept the terms there, then `hf auth login`).

An item: "How many strokes does the traditional character for 'dragon' have?"; answer 16. (The example is ours.)

    inspect eval tasks/hle.py --model local/llama --limit 100
"""

from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.solver import generate, prompt_template

from tasks._answers import final_answer
from tasks._shared import DataRow, DataSource, Hub, Role, TaskInfo, content_id, dataset, measured

ITEMS = DataSource(
    bundled=Path(__file__).parent / "data" / "hle.jsonl",
    columns="question, answer, category and image",
    hub=Hub("cais/hle", "5a81a4c7271a2a2a312b9a690f0c2fde837e4c29", "test"),
)
PROMPT = "{prompt}\n\nExplain your answer. Then write it on a last line of its own, after ANSWER:"
INFO = TaskInfo(
    title="Humanity's Last Exam: expert questions at the frontier of human knowledge; only those without a picture",
    blurb="Humanity's Last Exam, a benchmark of expert questions that measures the limits of language models.",
    role=Role.BENCHMARK,
    data=ITEMS,
    licence="MIT (gated)",
)


@task
@measured(INFO)
def hle(source: str = "hub", category: str | None = None) -> Task:
    """Zero-shot. The text after ANSWER: must equal the answer, except for case, spaces and LaTeX formatting.

    The paper uses an LLM judge, which accepts more answers.

    Args:
        source: hub, bundled, or a file with columns question, answer, category and image. Questions with an image are left out.
        category: only questions of this category, e.g. Math.
    """
    rows = [row for row in ITEMS.rows(source) if not row.has("image") and category in (None, row.optional_scalar("category"))]
    return Task(
        dataset=dataset([_sample(row) for row in rows], "hle", source),
        solver=[prompt_template(PROMPT), generate()],
        scorer=final_answer(),
        version="1-A",
    )


def _sample(row: DataRow) -> Sample:
    question, answer, row_id = row.text("question"), row.scalar("answer"), row.optional_scalar("id")
    metadata = {"category": row.optional_scalar("category"), "id_from_content": row_id is None}
    return Sample(id=row_id or content_id(question), input=question, target=answer, metadata=metadata)
