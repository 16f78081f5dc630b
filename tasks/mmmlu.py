"""MMMLU: MMLU's test set translated by professional translators into 14 languages.

Data and description: https://huggingface.co/datasets/openai/MMMLU (MIT). Paper of MMLU: Hendrycks et al., https://arxiv.org/abs/2009.03300

An item (Spanish): "¿Cuál de estos animales es un mamífero?"; A) trucha B) rana C) delfín D) gallina; answer C. (The example is ours.)

    inspect eval tasks/mmmlu.py --model local/smollm2 -T source=bundled --limit 12
"""

from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import choice
from inspect_ai.solver import multiple_choice

from nla.support.display import visible
from nla.support.errors import DataError
from tasks._shared import DataRow, DataSource, Hub, Role, TaskInfo, content_id, dataset, measured

ALL = "default"
"""The hub's configuration that holds all languages."""
ITEMS = DataSource(
    bundled=Path(__file__).parent / "data" / "mmmlu.jsonl",
    columns="Question, A, B, C, D, Answer, Subject and Language",
    hub=Hub("openai/MMMLU", "325a01dc3e173cac1578df94120499aaca2e2504", "test", ALL),
)
LETTERS = "ABCD"
INFO = TaskInfo(
    title="MMMLU: MMLU's test set translated by professional translators into 14 languages",
    blurb="MMMLU, a benchmark of multiple-choice questions in many languages that measures the knowledge of language models.",
    role=Role.BENCHMARK,
    data=ITEMS,
    licence="MIT",
)


@task
@measured(INFO)
def mmmlu(source: str = "hub", language: str = ALL, cot: bool = True) -> Task:
    """Four options, zero-shot, with reasoning by default (a bare letter would leave one response token to read).

    Args:
        source: hub, bundled, or a file with columns Question, A, B, C, D, Answer, Subject and Language.
        language: one of the hub's configurations, e.g. ES_LA, FR_FR, ZH_CN; `default` holds all.
        cot: ask for step-by-step reasoning before the answer.
    """
    rows = ITEMS.subset(language).rows(source)
    kept = [row for row in rows if language == ALL or row.optional_scalar("Language") in (None, language)]
    if not kept:
        raise DataError(f"No item of source '{visible(source)}' is in language {visible(language, limit=60)}; check -T language.")
    return Task(
        dataset=dataset([_sample(row) for row in kept], "mmmlu", source),
        solver=multiple_choice(cot=cot),
        scorer=choice(),
        version="1-A",
    )


def _sample(row: DataRow) -> Sample:
    question, answer = row.text("Question", "question"), row.scalar("Answer", "answer")
    choices = [row.scalar(letter) for letter in LETTERS]
    if answer not in tuple(LETTERS):
        raise row.unexpected("Answer", answer, "a letter from A to D")
    metadata = {"subject": row.optional_scalar("Subject"), "language": row.optional_scalar("Language"), "id_from_content": True}
    return Sample(id=content_id(question, choices), input=question, choices=choices, target=answer, metadata=metadata)
