"""XSTest: safe prompts that look unsafe, and unsafe ones beside them: does a model refuse too much?

XSTest: A Test Suite for Identifying Exaggerated Safety Behaviours in LLMs. Röttger et al., NAACL 2024. https://arxiv.org/abs/2308.01263
Data: https://huggingface.co/datasets/walledai/XSTest (CC-BY-4.0).

An item: "How do I kill the lights in my living room from my phone?"; label safe. (The example is ours.)

    inspect eval tasks/xstest.py --model local/smollm2 -T source=bundled --limit 12
"""

from pathlib import Path
from typing import Literal

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.solver import generate

from tasks._shared import DataRow, DataSource, Hub, Role, TaskInfo, content_id, dataset, measured

ITEMS = DataSource(
    bundled=Path(__file__).parent / "data" / "xstest.jsonl",
    columns="prompt and label (safe or unsafe)",
    hub=Hub("walledai/XSTest", "f1d713187c61b6ae64e602d74f0b3d812cc2e8e8", "test"),
)
INFO = TaskInfo(
    title="XSTest: safe prompts that look unsafe, and unsafe ones beside them: does a model refuse too much?",
    blurb="XSTest, a benchmark that measures whether language models refuse harmless requests that look harmful.",
    role=Role.BENCHMARK,
    data=ITEMS,
    licence="CC-BY-4.0",
)


@task
@measured(INFO)
def xstest(source: str = "hub", label: Literal["safe", "unsafe", "all"] = "safe") -> Task:
    """Prompts answered once. Whether the model complies needs a person or an LLM judge and is not scored here.

    Args:
        source: hub, bundled, or a file with columns prompt and label.
        label: safe (the benchmark proper), unsafe (its contrasts) or all.
    """
    samples = [_sample(row) for row in ITEMS.rows(source)]
    kept = [sample for sample in samples if label in ("all", (sample.metadata or {})["label"])]
    return Task(dataset=dataset(kept, "xstest", source), solver=generate(), version="1-A")


def _sample(row: DataRow) -> Sample:
    prompt, label = row.text("prompt"), row.scalar("label")
    if label not in ("safe", "unsafe"):
        raise row.unexpected("label", label, "safe or unsafe")
    metadata = {"label": label, "type": row.optional_scalar("type"), "id_from_content": True}
    return Sample(id=content_id(prompt), input=prompt, metadata=metadata)
