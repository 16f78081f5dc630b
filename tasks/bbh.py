"""BIG-Bench Hard: tasks on which earlier language models did worse than people.

Challenging BIG-Bench Tasks and Whether Chain-of-Thought Can Solve Them. Suzgun et al., 2022. https://arxiv.org/abs/2210.09261
Data: https://huggingface.co/datasets/Joschka/big_bench_hard (MIT licence). BIG-bench asks not to be trained on.

An item: task `object_counting`; "I have a drum, two flutes and a harp. How many instruments do I have?"; answer 4. (The example is ours.)

    inspect eval tasks/bbh.py --model local/smollm2 -T source=bundled --limit 12
"""

from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import pattern
from inspect_ai.solver import generate, prompt_template

from nla.support.errors import ConfigError, DataError
from nla.support.rows import Row, content_id
from tasks._info import Role, TaskInfo
from tasks._measured import measured
from tasks._shared import DataSource, Hub, dataset, field, text_field

BLURB = "BIG-Bench Hard, a benchmark of difficult reasoning tasks for language models."
REVISION = "76eaa8c29ad448752cd44201a1246618e2454cac"
DATA = Path(__file__).parent / "data" / "bbh.jsonl"
PROMPT = "{prompt}\n\nThink step by step. Then write the answer on a last line of its own, after ANSWER:"
INFO = TaskInfo(
    title="BIG-Bench Hard: tasks on which earlier language models did worse than people",
    blurb=BLURB,
    role=Role.BENCHMARK,
    licence="MIT licence",
)


@task
@measured(INFO)
def bbh(source: str = "hub", subtask: str | None = None) -> Task:
    """Zero-shot, with reasoning; what stands after ANSWER: must equal the target.

    Args:
        source: hub, bundled, or a file with columns task, input (or question) and target.
        subtask: only this task, e.g. object_counting; the hub has one set a task, so it is needed there.
    """
    if source == "hub" and subtask is None:
        raise ConfigError(
            "the hub holds BIG-Bench Hard by task; name one with -T subtask=object_counting, or give a file (-T source=PATH)."
        )
    items = DataSource(Hub("Joschka/big_bench_hard", REVISION, subtask or "", subtask), DATA)
    rows = [row for row in items.rows(source) if subtask is None or row.get("task", subtask) == subtask]
    if not rows:
        raise DataError(f"no item of source '{source}' is of task {subtask}.")
    return Task(
        dataset=dataset([_sample(row) for row in rows], "bbh", source),
        solver=[prompt_template(PROMPT), generate()],
        scorer=pattern(r"ANSWER:\s*(.+?)\s*$"),
        version="1-A",
    )


def _sample(row: Row) -> Sample:
    text, target = text_field(row, "input", "question"), str(field(row, "target"))
    choices = row.get("choices")
    if isinstance(choices, dict) and choices.get("text"):  # the hub's form: lettered options apart from the question
        text += "\nOptions:\n" + "\n".join(f"({label}) {option}" for label, option in zip(choices["label"], choices["text"], strict=True))
    name = str(row.get("task", ""))
    return Sample(id=content_id(name, text), input=text, target=target, metadata={"task": name, "id_from_content": True})
