"""SimpleQA: short fact-seeking questions with one answer that does not change.

Measuring short-form factuality in large language models. Wei et al., 2024. https://arxiv.org/abs/2411.04368
Data: https://huggingface.co/datasets/codelion/SimpleQA-Verified (MIT), a checked subset.

An item: "In which year was the first stamp of the Faroe Islands issued?"; answer 1975. (The example is ours.)

    inspect eval tasks/simpleqa.py --model local/llama --limit 100
"""

from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes
from inspect_ai.solver import generate

from tasks._shared import DataRow, DataSource, Hub, Role, TaskInfo, content_id, dataset, measured

ITEMS = DataSource(
    bundled=Path(__file__).parent / "data" / "simpleqa.jsonl",
    columns="problem (or question) and answer",
    hub=Hub("codelion/SimpleQA-Verified", "5a913f57326d89935cbed0ac071494e7e624b876", "train"),
)
INFO = TaskInfo(
    title="SimpleQA: short fact-seeking questions with one answer that does not change",
    blurb="SimpleQA, a benchmark of short questions that measures whether language models state facts correctly.",
    role=Role.BENCHMARK,
    data=ITEMS,
    licence="MIT",
)


@task
@measured(INFO)
def simpleqa(source: str = "hub") -> Task:
    """Questions asked unchanged. A reply that contains the answer's text counts as correct.

    The paper's LLM judge also accepts other wordings, and distinguishes wrong answers from missing ones.

    Args:
        source: hub, bundled, or a file with columns problem (or question) and answer.
    """
    return Task(
        dataset=dataset([_sample(row) for row in ITEMS.rows(source)], "simpleqa", source),
        solver=generate(),
        scorer=includes(),
        version="1-A",
    )


def _sample(row: DataRow) -> Sample:
    question, answer = row.text("problem", "question"), row.scalar("answer")
    metadata = {"topic": row.optional_scalar("topic"), "id_from_content": True}
    return Sample(id=content_id(question, answer), input=question, target=answer, metadata=metadata)
