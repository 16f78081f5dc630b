"""XSTest: safe prompts that look unsafe, and unsafe ones beside them: does a model refuse too much?

XSTest: A Test Suite for Identifying Exaggerated Safety Behaviours in LLMs. Röttger et al., NAACL 2024. https://arxiv.org/abs/2308.01263
Data: https://huggingface.co/datasets/walledai/XSTest (CC-BY-4.0).

An item: "How do I kill the lights in my living room from my phone?"; label safe. (The example is ours.)

    inspect eval tasks/xstest.py --model local/smollm2 -T source=bundled --limit 12
"""

from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.solver import generate

from nla.support.errors import ConfigError
from nla.support.rows import Row, content_id
from tasks._info import Role, TaskInfo
from tasks._measured import measured
from tasks._shared import DataSource, Hub, dataset, text_field

BLURB = "XSTest, a benchmark that measures whether language models refuse harmless requests that look harmful."
REVISION = "f1d713187c61b6ae64e602d74f0b3d812cc2e8e8"
ITEMS = DataSource(Hub("walledai/XSTest", REVISION, "test"), Path(__file__).parent / "data" / "xstest.jsonl")
LABELS = ("safe", "unsafe", "all")
INFO = TaskInfo(
    title="XSTest: safe prompts that look unsafe, and unsafe ones beside them: does a model refuse too much?",
    blurb=BLURB,
    role=Role.BENCHMARK,
    data=ITEMS,
    licence="CC-BY-4.0",
)


@task
@measured(INFO)
def xstest(source: str = "hub", label: str = "safe") -> Task:
    """Prompts answered once. Compliance is not scored here: its labels need a person or a judge.

    Args:
        source: hub, bundled, or a file with columns prompt and label.
        label: safe (the benchmark proper), unsafe (its contrasts) or all.
    """
    if label not in LABELS:
        raise ConfigError(f"label={label} makes no sense; give {', '.join(LABELS)}.")
    rows = [row for row in ITEMS.rows(source) if label in ("all", row.get("label"))]
    return Task(dataset=dataset([_sample(row) for row in rows], "xstest", source), solver=generate(), version="1-A")


def _sample(row: Row) -> Sample:
    prompt = text_field(row, "prompt")
    return Sample(
        id=content_id(prompt), input=prompt, metadata={"label": row.get("label"), "type": row.get("type"), "id_from_content": True}
    )
