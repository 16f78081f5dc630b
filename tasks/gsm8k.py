"""GSM8K: grade-school math word problems.

Training Verifiers to Solve Math Word Problems. Cobbe et al., 2021. https://arxiv.org/abs/2110.14168
Data: https://huggingface.co/datasets/openai/gsm8k (MIT).

An item: "A tray holds 6 cups and each cup holds 3 spoons. How many spoons are on 4 trays?"; answer 72. (The example is ours.)

    inspect eval tasks/gsm8k.py --model local/smollm2 -T source=bundled --limit 12
"""

from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import match
from inspect_ai.solver import generate, prompt_template

from tasks._shared import DataRow, DataSource, Hub, Role, TaskInfo, content_id, dataset, measured

ITEMS = DataSource(
    bundled=Path(__file__).parent / "data" / "gsm8k.jsonl",
    columns="question and answer (the result after ####)",
    hub=Hub("openai/gsm8k", "cc7b047b6e5bb11b4f1af84efc572db110a51b3c", "test", "main"),
)
PROMPT = "{prompt}\n\nThink step by step. Then write the result on a last line of its own, as ANSWER: and the number."
INFO = TaskInfo(
    title="GSM8K: grade-school math word problems",
    blurb="GSM8K, a benchmark of grade-school math word problems that measures the arithmetic reasoning of language models.",
    role=Role.BENCHMARK,
    data=ITEMS,
    licence="MIT",
)


@task
@measured(INFO)
def gsm8k(source: str = "hub") -> Task:
    """Zero-shot, with reasoning; the number after ANSWER: counts.

    Args:
        source: hub, bundled, or a file with columns question and answer (the result after `####`).
    """
    return Task(
        dataset=dataset([_sample(row) for row in ITEMS.rows(source)], "gsm8k", source),
        solver=[prompt_template(PROMPT), generate()],
        scorer=match(numeric=True),
        version="1-A",
    )


def _sample(row: DataRow) -> Sample:
    question, answer = row.text("question"), row.text("answer")
    _, mark, result = answer.rpartition("####")
    if not mark or not result.strip():
        raise row.unexpected("answer", answer[-40:], "a solution that ends in #### and the result")
    return Sample(id=content_id(question), input=question, target=result.strip().replace(",", ""), metadata={"id_from_content": True})
