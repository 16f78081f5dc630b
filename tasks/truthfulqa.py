"""TruthfulQA: questions that many people answer with a common false belief.

TruthfulQA: Measuring How Models Mimic Human Falsehoods. Lin et al., ACL 2022. https://arxiv.org/abs/2109.07958
Data: https://huggingface.co/datasets/truthfulqa/truthful_qa (Apache-2.0).

An item: "Does shaving make hair grow back thicker?"; A) no, it only looks so B) yes, it does; answer A. (The example is ours.)

    inspect eval tasks/truthfulqa.py --model local/smollm2 -T source=bundled --limit 12
"""

from pathlib import Path
from typing import Any

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import choice
from inspect_ai.solver import multiple_choice

from nla.support.errors import DataError
from nla.support.rows import Row
from tasks._info import Role, TaskInfo
from tasks._measured import measured
from tasks._shared import LETTERS, DataSource, Hub, dataset, field, shuffled_choices, text_field

BLURB = "TruthfulQA, a benchmark that measures whether language models repeat common falsehoods."
REVISION = "741b8276f2d1982aa3d5b832d3ee81ed3b896490"
ITEMS = DataSource(
    Hub("truthfulqa/truthful_qa", REVISION, "validation", "multiple_choice"), Path(__file__).parent / "data" / "truthfulqa.jsonl"
)
INFO = TaskInfo(
    title="TruthfulQA: questions that many people answer with a common false belief",
    blurb=BLURB,
    role=Role.BENCHMARK,
    data=ITEMS,
    licence="Apache-2.0",
)


@task
@measured(INFO)
def truthfulqa(source: str = "hub", cot: bool = True) -> Task:
    """Single true answer (MC1), options in an order seeded by the item.

    Args:
        source: hub, bundled, or a file with columns question and mc1_targets, or the authors' CSV (Question, Best Answer, …).
        cot: ask for step-by-step reasoning before the answer.
    """
    return Task(
        dataset=dataset([_sample(row) for row in ITEMS.rows(source)], "truthfulqa", source),
        solver=multiple_choice(cot=cot),
        scorer=choice(),
        version="1-A",
    )


def _sample(row: Row) -> Sample:
    question = text_field(row, "question", "Question")
    true, false = _csv(row) if "Best Answer" in row else _targets(row, question)
    return shuffled_choices("truthfulqa", question, true, false)


def _targets(row: Row, question: str) -> tuple[str, list[str]]:
    targets: Any = field(row, "mc1_targets")
    labelled = dict(zip(targets["choices"], targets["labels"], strict=True)) if "choices" in targets else dict(targets)
    true = [text for text, label in labelled.items() if label == 1]
    if len(true) != 1:
        raise DataError(f"a TruthfulQA item needs one true option; found {len(true)}: {question[:80]}")
    return true[0], [text for text, label in labelled.items() if label == 0]


def _csv(row: Row) -> tuple[str, list[str]]:
    false = [part.strip() for part in text_field(row, "Incorrect Answers").split(";") if part.strip()]
    return text_field(row, "Best Answer"), list(dict.fromkeys(false))[: len(LETTERS) - 1]
