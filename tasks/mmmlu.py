"""MMMLU: MMLU's test set translated by professional translators into 14 languages.

Data and description: https://huggingface.co/datasets/openai/MMMLU (MIT licence); MMLU: https://arxiv.org/abs/2009.03300

An item (Spanish): "¿Cuál de estos animales es un mamífero?"; A) trucha B) rana C) delfín D) gallina; answer C. (The example is ours.)

    inspect eval tasks/mmmlu.py --model local/smollm2 -T source=bundled --limit 12
"""

from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import choice
from inspect_ai.solver import multiple_choice

from nla.support.errors import DataError
from nla.support.rows import Row, content_id
from tasks._info import Role, TaskInfo
from tasks._measured import measured
from tasks._shared import DataSource, Hub, dataset, field, text_field

BLURB = "MMMLU, a benchmark of multiple-choice questions in many languages that measures the knowledge of language models."
REVISION = "325a01dc3e173cac1578df94120499aaca2e2504"
DATA = Path(__file__).parent / "data" / "mmmlu.jsonl"
LETTERS = "ABCD"
INFO = TaskInfo(
    title="MMMLU: MMLU's test set translated by professional translators into 14 languages",
    blurb=BLURB,
    role=Role.BENCHMARK,
    licence="MIT licence",
)


@task
@measured(INFO)
def mmmlu(source: str = "hub", language: str = "default", cot: bool = True) -> Task:
    """Four options, 0-shot, with reasoning by default (a bare letter would leave one response token to read).

    Args:
        source: hub, bundled, or a file with columns Question, A, B, C, D, Answer and Subject.
        language: one of the hub's configurations, e.g. ES_LA, FR_FR, ZH_CN; `default` holds all.
        cot: ask for step-by-step reasoning before the answer.
    """
    rows = DataSource(Hub("openai/MMMLU", REVISION, "test", language), DATA).rows(source)
    kept = [row for row in rows if language == "default" or row.get("Language", language) == language]
    if not kept:
        raise DataError(f"no item of source '{source}' is in language {language}.")
    return Task(
        dataset=dataset([_sample(row) for row in kept], "mmmlu", source),
        solver=multiple_choice(cot=cot),
        scorer=choice(),
        version="1-A",
    )


def _sample(row: Row) -> Sample:
    question, answer = text_field(row, "Question", "question"), str(field(row, "Answer", "answer"))
    choices = [str(field(row, letter)) for letter in LETTERS]
    if answer not in tuple(LETTERS):
        raise DataError(f"an MMMLU item needs an answer from A to D; found {answer!r}: {question[:80]}")
    metadata = {"subject": row.get("Subject"), "language": row.get("Language"), "id_from_content": True}
    return Sample(id=content_id(question, choices), input=question, choices=choices, target=answer, metadata=metadata)
