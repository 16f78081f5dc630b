"""BIG-Bench Hard: tasks on which earlier language models did worse than people.

Challenging BIG-Bench Tasks and Whether Chain-of-Thought Can Solve Them. Suzgun et al., 2022. https://arxiv.org/abs/2210.09261
Data: https://huggingface.co/datasets/Joschka/big_bench_hard (MIT). The authors of BIG-bench ask that models are not trained on it.

An item: task `object_counting`; "I have a drum, two flutes and a harp. How many instruments do I have?"; answer 4. (The example is ours.)

    inspect eval tasks/bbh.py --model local/smollm2 -T source=bundled --limit 12
"""

from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import pattern
from inspect_ai.solver import generate, prompt_template

from nla.support.errors import ConfigError, DataError
from tasks._shared import DataRow, DataSource, Hub, Role, TaskInfo, content_id, dataset, measured

ITEMS = DataSource(
    bundled=Path(__file__).parent / "data" / "bbh.jsonl",
    columns="task, input (or question) and target",
    hub=Hub("Joschka/big_bench_hard", "76eaa8c29ad448752cd44201a1246618e2454cac", "test"),
    subsets="subtask",
)
PROMPT = "{prompt}\n\nThink step by step. Then write the answer on a last line of its own, after ANSWER:"
INFO = TaskInfo(
    title="BIG-Bench Hard: tasks on which earlier language models did worse than people",
    blurb="BIG-Bench Hard, a benchmark of difficult reasoning tasks for language models.",
    role=Role.BENCHMARK,
    data=ITEMS,
    licence="MIT",
)


@task
@measured(INFO)
def bbh(source: str = "hub", subtask: str | None = None) -> Task:
    """Zero-shot, with reasoning; the text after ANSWER: must equal the target.

    Args:
        source: hub, bundled, or a file with columns task, input (or question) and target.
        subtask: only this task, e.g. object_counting. The hub has one set per task, so the name is needed there.
    """
    if source == "hub" and subtask is None:
        raise ConfigError(
            "The hub holds BIG-Bench Hard as one set per task: name one with -T subtask=object_counting, or give a file with columns "
            f"{ITEMS.columns} (-T source=PATH)."
        )
    rows = ITEMS.subset(subtask, subtask).rows(source)
    samples = [_sample(row) for row in rows if subtask is None or row.optional_scalar("task") in (None, subtask)]
    if not samples:
        raise DataError(f"No item of source '{source}' belongs to the task {subtask}; check -T subtask.")
    return Task(
        dataset=dataset(samples, "bbh", source),
        solver=[prompt_template(PROMPT), generate()],
        scorer=pattern(r"ANSWER:\s*(.+?)\s*$"),
        version="1-A",
    )


def _sample(row: DataRow) -> Sample:
    text, target = row.text("input", "question"), row.scalar("target")
    if row.has("choices"):  # the hub's form: lettered options apart from the question
        options = row.nested("choices")
        if options.values.get("text"):
            labels, texts = options.texts("label"), options.texts("text")
            if len(labels) != len(texts):
                raise row.problem(f"found {len(labels)} labels for {len(texts)} options, expected one each", "choices")
            text += "\nOptions:\n" + "\n".join(f"({label}) {option}" for label, option in zip(labels, texts, strict=True))
    name = row.optional_scalar("task") or ""
    return Sample(id=content_id(name, text), input=text, target=target, metadata={"task": name, "id_from_content": True})
