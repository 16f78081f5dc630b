"""MMLU: four-option questions over 57 subjects.

Measuring Massive Multitask Language Understanding. Hendrycks et al., ICLR 2021. https://arxiv.org/abs/2009.03300
Data: https://huggingface.co/datasets/cais/mmlu (MIT licence).

An item: subject `anatomy`; "Which of these bones is in the forearm?"; A) femur B) radius C) tibia D) clavicle; answer B.
(The example is ours, in the benchmark's form.)

    inspect eval tasks/mmlu.py --model local/smollm2 -T source=bundled --limit 20
"""

from pathlib import Path
from typing import Any

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.model import ChatMessage, ChatMessageAssistant, ChatMessageUser
from inspect_ai.scorer import choice
from inspect_ai.solver import multiple_choice

from nla.support.errors import ConfigError, DataError
from nla.support.rows import Row, content_id
from tasks._info import Role, TaskInfo
from tasks._measured import measured
from tasks._shared import DataSource, Hub, dataset, field, text_field

BLURB = "MMLU, a benchmark of four-option multiple-choice questions that measures the knowledge of language models."
REVISION = "c30699e8356da336a370243923dbaf21066bb9fe"
DATA = Path(__file__).parent / "data"
TEST = DataSource(Hub("cais/mmlu", REVISION, "test", "all"), DATA / "mmlu.jsonl")
DEV = DataSource(Hub("cais/mmlu", REVISION, "dev", "all"), DATA / "mmlu_dev.jsonl")
LETTERS = "ABCD"
INFO = TaskInfo(
    title="MMLU: four-option questions over 57 subjects",
    blurb=BLURB,
    role=Role.BENCHMARK,
    licence="MIT licence",
)


@task
@measured(INFO)
def mmlu(
    source: str = "hub",
    subjects: str | list[str] | None = None,
    fewshot: int = 0,
    fewshot_source: str | None = None,
    cot: bool = True,
) -> Task:
    """MMLU, 0-shot with reasoning by default (a bare letter would leave one response token to read).

    Args:
        source: hub, bundled, or a file with columns question, subject, choices, answer (or choice0 to choice3).
        subjects: only these (comma-separated).
        fewshot: solved examples of the item's subject shown before it, as earlier turns of the conversation; 5 is usual.
        fewshot_source: where the examples come from; needed where source is a file.
        cot: ask for step-by-step reasoning before the answer.
    """
    wanted = {s.strip() for s in subjects.split(",")} if isinstance(subjects, str) else set(subjects or [])
    rows = [row for row in TEST.rows(source) if not wanted or field(row, "subject") in wanted]
    if not rows:
        raise DataError(f"no item of source '{source}' has a subject of {', '.join(sorted(wanted))}.")
    examples = _examples(source, fewshot_source, fewshot)
    samples = [_sample(row, _shots(examples, row, fewshot)) for row in rows]
    return Task(
        dataset=dataset(samples, "mmlu", source),
        solver=multiple_choice(cot=cot),
        scorer=choice(),
        version="1-A",
    )


def _sample(row: Row, shots: list[ChatMessage]) -> Sample:
    question, choices, answer = _parts(row)
    subject = str(field(row, "subject"))
    return Sample(
        id=content_id(subject, question, choices),
        input=[*shots, ChatMessageUser(content=question)] if shots else question,
        choices=choices,
        target=LETTERS[answer],
        metadata={"subject": subject, "id_from_content": True},
    )


def _parts(row: Row) -> tuple[str, list[str], int]:
    """Question, options and index of the right one, from the hub's columns or from choice0 to choice3."""
    question = text_field(row, "question")
    listed: Any = row.get("choices")
    choices = listed if listed is not None else [field(row, f"choice{i}") for i in range(4)]
    answer = str(field(row, "answer"))
    if not isinstance(choices, list) or len(choices) != 4 or any(choice is None for choice in choices):
        raise DataError(f"an MMLU item needs a list of four choices; found {choices!r}: {question[:80]}")
    if answer not in ("0", "1", "2", "3"):
        raise DataError(f"an MMLU item needs an answer from 0 to 3; found {answer!r}: {question[:80]}")
    return question, [str(choice) for choice in choices], int(answer)


def _examples(source: str, fewshot_source: str | None, fewshot: int) -> list[Row]:
    if not isinstance(fewshot, int) or fewshot < 0:
        raise ConfigError(f"fewshot={fewshot} makes no sense; give a whole number, 0 or more.")
    if fewshot == 0:
        return []
    if fewshot_source is None and source not in ("hub", "bundled"):
        raise ConfigError("with a file as source, say where the solved examples come from: -T fewshot_source=PATH (or bundled, or hub).")
    examples = DEV.rows(fewshot_source or source)
    if len(examples) < fewshot:
        raise ConfigError(f"fewshot={fewshot}, but '{fewshot_source or source}' has only {len(examples)} solved examples.")
    return examples


def _shots(examples: list[Row], row: Row, fewshot: int) -> list[ChatMessage]:
    """Solved examples as earlier turns: of the item's subject if there are enough, else filled up with others, in file order."""
    own = [e for e in examples if e.get("subject") == row.get("subject")]
    picked = [*own, *(e for e in examples if e not in own)][:fewshot]
    turns: list[ChatMessage] = []
    for example in picked:
        question, choices, answer = _parts(example)
        options = "\n".join(f"{letter}) {option}" for letter, option in zip(LETTERS, choices, strict=True))
        turns.append(ChatMessageUser(content=f"{question}\n\n{options}"))
        turns.append(ChatMessageAssistant(content=f"ANSWER: {LETTERS[answer]}"))
    return turns
