"""MMLU: four-option questions over 57 subjects.

Measuring Massive Multitask Language Understanding. Hendrycks et al., ICLR 2021. https://arxiv.org/abs/2009.03300
Data: https://huggingface.co/datasets/cais/mmlu (MIT).

An item: subject `anatomy`; "Which of these bones is in the forearm?"; A) femur B) radius C) tibia D) clavicle; answer B.
(The example is ours, in the benchmark's form.)

    inspect eval tasks/mmlu.py --model local/smollm2 -T source=bundled --limit 20
"""

from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.model import ChatMessage, ChatMessageAssistant, ChatMessageUser
from inspect_ai.scorer import choice
from inspect_ai.solver import multiple_choice
from pydantic import NonNegativeInt

from nla.support.display import visible
from nla.support.errors import ConfigError, DataError
from tasks._shared import DataRow, DataSource, Hub, Role, TaskInfo, content_id, dataset, measured

REVISION = "c30699e8356da336a370243923dbaf21066bb9fe"
COLUMNS = "question, subject, choices (four, or choice0 to choice3) and answer (0 to 3)"
TEST = DataSource(bundled=Path(__file__).parent / "data" / "mmlu.jsonl", columns=COLUMNS, hub=Hub("cais/mmlu", REVISION, "test", "all"))
DEV = DataSource(bundled=Path(__file__).parent / "data" / "mmlu_dev.jsonl", columns=COLUMNS, hub=Hub("cais/mmlu", REVISION, "dev", "all"))
LETTERS = "ABCD"
INFO = TaskInfo(
    title="MMLU: four-option questions over 57 subjects",
    blurb="MMLU, a benchmark of four-option multiple-choice questions that measures the knowledge of language models.",
    role=Role.BENCHMARK,
    data=TEST,
    examples=DEV,
    licence="MIT",
)


@task
@measured(INFO)
def mmlu(
    source: str = "hub",
    subjects: str | list[str] | None = None,
    fewshot: NonNegativeInt = 0,
    fewshot_source: str | None = None,
    cot: bool = True,
) -> Task:
    """Zero-shot with reasoning by default (a bare letter would leave one response token to read).

    Args:
        source: hub, bundled, or a file with columns question, subject, choices (or choice0 to choice3) and answer.
        subjects: only these subjects (comma-separated).
        fewshot: number of solved examples of the item's subject shown before it, as earlier turns of the conversation; 5 is usual.
        fewshot_source: where the examples come from; needed where source is a file.
        cot: ask for step-by-step reasoning before the answer.
    """
    wanted = {s.strip() for s in subjects.split(",")} if isinstance(subjects, str) else set(subjects or [])
    rows = [row for row in TEST.rows(source) if not wanted or row.scalar("subject") in wanted]
    if not rows:
        raise DataError(f"No item of source '{visible(source)}' has a subject of {visible(', '.join(sorted(wanted)))}; check -T subjects.")
    examples = _examples(source, fewshot_source, fewshot)
    samples = [_sample(row, _shots(examples, row, fewshot)) for row in rows]
    return Task(
        dataset=dataset(samples, "mmlu", source),
        solver=multiple_choice(cot=cot),
        scorer=choice(),
        version="1-A",
    )


def _sample(row: DataRow, shots: list[ChatMessage]) -> Sample:
    question, choices, answer = _parts(row)
    subject = row.scalar("subject")
    return Sample(
        id=content_id(subject, question, choices),
        input=[*shots, ChatMessageUser(content=question)] if shots else question,
        choices=choices,
        target=LETTERS[answer],
        metadata={"subject": subject, "id_from_content": True},
    )


def _parts(row: DataRow) -> tuple[str, list[str], int]:
    """Question, options and index of the right option, from the hub's columns or from choice0 to choice3."""
    question, answer = row.text("question"), row.scalar("answer")
    choices = row.texts("choices") if "choices" in row.values else [row.scalar(f"choice{i}") for i in range(4)]
    if len(choices) != 4:
        raise row.unexpected("choices", choices, "a list of four options")
    if answer not in ("0", "1", "2", "3"):
        raise row.unexpected("answer", answer, "a number from 0 to 3")
    return question, choices, int(answer)


def _examples(source: str, fewshot_source: str | None, fewshot: int) -> list[DataRow]:
    if fewshot == 0:
        return []
    if fewshot_source is None and source not in ("hub", "bundled"):
        raise ConfigError("With a file as source, say where the solved examples come from: -T fewshot_source=PATH (or bundled, or hub).")
    examples = DEV.rows(fewshot_source or source)
    if len(examples) < fewshot:
        raise ConfigError(
            f"Invalid fewshot={fewshot}: expected at most {len(examples)}, the number of solved examples in "
            f"'{visible(fewshot_source or source)}'."
        )
    return examples


def _shots(examples: list[DataRow], row: DataRow, fewshot: int) -> list[ChatMessage]:
    """Solved examples as earlier turns: those of the item's subject first, then others in file order."""
    subject = row.scalar("subject") if examples else ""
    ordered = sorted(examples, key=lambda example: example.optional_scalar("subject") != subject)  # the sort is stable
    turns: list[ChatMessage] = []
    for example in ordered[:fewshot]:
        question, choices, answer = _parts(example)
        options = "\n".join(f"{letter}) {option}" for letter, option in zip(LETTERS, choices, strict=True))
        turns.append(ChatMessageUser(content=f"{question}\n\n{options}"))
        turns.append(ChatMessageAssistant(content=f"ANSWER: {LETTERS[answer]}"))
    return turns
