"""TruthfulQA: questions that many people answer with a common false belief.

TruthfulQA: Measuring How Models Mimic Human Falsehoods. Lin et al., ACL 2022. https://arxiv.org/abs/2109.07958
Data: https://huggingface.co/datasets/truthfulqa/truthful_qa (Apache-2.0).

An item: "Does shaving make hair grow back thicker?"; A) no, it only looks so B) yes, it does; answer A. (The example is ours.)

    inspect eval tasks/truthfulqa.py --model local/smollm2 -T source=bundled --limit 12
"""

from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import choice
from inspect_ai.solver import multiple_choice

from tasks._shared import LETTERS, DataRow, DataSource, Hub, Role, TaskInfo, dataset, measured, shuffled_choices

ITEMS = DataSource(
    bundled=Path(__file__).parent / "data" / "truthfulqa.jsonl",
    columns="question and mc1_targets (choices and labels), or Question, Best Answer and Incorrect Answers",
    hub=Hub("truthfulqa/truthful_qa", "741b8276f2d1982aa3d5b832d3ee81ed3b896490", "validation", "multiple_choice"),
)
INFO = TaskInfo(
    title="TruthfulQA: questions that many people answer with a common false belief",
    blurb="TruthfulQA, a benchmark that measures whether language models repeat common falsehoods.",
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


def _sample(row: DataRow) -> Sample:
    true, false = _authors_csv(row) if row.has("Best Answer") else _targets(row)
    return shuffled_choices(row, row.text("question", "Question"), true, false)


def _targets(row: DataRow) -> tuple[str, list[str]]:
    """The true option and the false ones: `choices` with `labels` (the hub's form), or an object of option and label."""
    targets = row.nested("mc1_targets")
    if targets.has("choices"):
        options, labels = targets.texts("choices"), targets.texts("labels")
    else:
        options = [option for option, label in targets.values.items() if label is not None]  # parquet gives every row all options
        labels = [targets.scalar(option) for option in options]
    if len(options) != len(labels) or labels.count("1") != 1 or set(labels) - {"0", "1"}:
        raise row.unexpected("mc1_targets", labels, f"a label for each of the {len(options)} options: one 1, and 0 for the others")
    labelled = dict(zip(options, labels, strict=True))
    return options[labels.index("1")], [option for option, label in labelled.items() if label == "0"]


def _authors_csv(row: DataRow) -> tuple[str, list[str]]:
    false = [part.strip() for part in row.text("Incorrect Answers").split(";") if part.strip()]
    return row.text("Best Answer"), list(dict.fromkeys(false))[: len(LETTERS) - 1]
