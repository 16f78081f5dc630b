"""ARC-Challenge: science questions of school exams that simple methods get wrong.

Think you have Solved Question Answering? Try ARC. Clark et al., 2018. https://arxiv.org/abs/1803.05457
Data: https://huggingface.co/datasets/allenai/ai2_arc (CC-BY-SA-4.0).

An item: "Which of these makes ice on a pond melt?"; A) shade B) sunlight C) wind D) fog; answer B. (The example is ours.)

    inspect eval tasks/arc.py --model local/smollm2 -T source=bundled --limit 12
"""

import re
from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import choice
from inspect_ai.solver import multiple_choice

from tasks._shared import LETTERS, DataRow, DataSource, Hub, Role, TaskInfo, check_choices, content_id, dataset, measured

ITEMS = DataSource(
    bundled=Path(__file__).parent / "data" / "arc.jsonl",
    columns="question, choices (text and label) and answerKey",
    hub=Hub("allenai/ai2_arc", "210d026faf9955653af8916fad021475a3f00453", "test", "ARC-Challenge"),
)
INFO = TaskInfo(
    title="ARC-Challenge: science questions of school exams that simple methods get wrong",
    blurb="ARC-Challenge, a benchmark of multiple-choice science questions that measures the reasoning of language models.",
    role=Role.BENCHMARK,
    data=ITEMS,
    licence="CC-BY-SA-4.0",
)


@task
@measured(INFO)
def arc(source: str = "hub", cot: bool = True) -> Task:
    """Zero-shot, with reasoning by default (a bare letter would leave one response token to read).

    Args:
        source: hub, bundled, or a file with columns question, choices (text and label) and answerKey, or instruction and answer
            (`… Answer1: … Answer2: …`, `answer2`).
        cot: ask for step-by-step reasoning before the answer.
    """
    return Task(
        dataset=dataset([_sample(row) for row in ITEMS.rows(source)], "arc", source),
        solver=multiple_choice(cot=cot),
        scorer=choice(),
        version="1-A",
    )


def _sample(row: DataRow) -> Sample:
    question, choices, answer = _instruction(row) if row.has("instruction") else _hub(row)
    check_choices(row, choices, answer)
    return Sample(
        id=content_id(question, choices), input=question, choices=choices, target=LETTERS[answer], metadata={"id_from_content": True}
    )


def _hub(row: DataRow) -> tuple[str, list[str], int]:
    options = row.nested("choices")
    labels, key = options.texts("label"), row.scalar("answerKey")
    return row.text("question"), options.texts("text"), labels.index(key) if key in labels else -1


def _instruction(row: DataRow) -> tuple[str, list[str], int]:
    text = row.text("instruction").partition("\n\nAnswer format")[0]
    head, *options = re.split(r"\s*\bAnswer(\d+): ", text)
    numbers, choices = options[::2], [option.strip() for option in options[1::2]]
    answer = row.scalar("answer").removeprefix("answer")
    question = re.sub(r"^Please choose the correct answer to the question: ", "", head).strip()
    return question, choices, numbers.index(answer) if answer in numbers else -1
