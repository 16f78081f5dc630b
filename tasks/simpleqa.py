"""SimpleQA: short fact-seeking questions with one answer that does not change.

Measuring short-form factuality in large language models. Wei et al., 2024. https://arxiv.org/abs/2411.04368
Data: https://huggingface.co/datasets/codelion/SimpleQA-Verified (MIT licence), a checked subset.

An item: "In which year was the first stamp of the Faroe Islands issued?"; answer 1975. (The example is ours.)

    inspect eval tasks/simpleqa.py --model local/llama --limit 100
"""

from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes
from inspect_ai.solver import generate

from nla.support.rows import Row, content_id
from tasks._info import Role, TaskInfo
from tasks._measured import measured
from tasks._shared import DataSource, Hub, dataset, text_field

BLURB = "SimpleQA, a benchmark of short questions that measures whether language models state facts correctly."
REVISION = "5a913f57326d89935cbed0ac071494e7e624b876"
ITEMS = DataSource(Hub("codelion/SimpleQA-Verified", REVISION, "train"), Path(__file__).parent / "data" / "simpleqa.jsonl")
INFO = TaskInfo(
    title="SimpleQA: short fact-seeking questions with one answer that does not change",
    blurb=BLURB,
    role=Role.BENCHMARK,
    data=ITEMS,
    licence="MIT licence",
)


@task
@measured(INFO)
def simpleqa(source: str = "hub") -> Task:
    """Questions asked as they are. A reply that holds the answer's text counts; the paper's judge also accepts other wordings, and
    tells wrong answers from none.

    Args:
        source: hub, bundled, or a file with columns problem and answer.
    """
    return Task(
        dataset=dataset([_sample(row) for row in ITEMS.rows(source)], "simpleqa", source),
        solver=generate(),
        scorer=includes(),
        version="1-A",
    )


def _sample(row: Row) -> Sample:
    question, answer = text_field(row, "problem", "question"), str(row.get("answer", ""))
    return Sample(
        id=content_id(question, answer), input=question, target=answer, metadata={"topic": row.get("topic"), "id_from_content": True}
    )
