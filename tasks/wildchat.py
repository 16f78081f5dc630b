"""WildChat: first turns that real people sent to a chatbot. The deployment control on which the noise floor is measured.

WildChat: 1M ChatGPT Interaction Logs in the Wild. Zhao et al., ICLR 2024. https://arxiv.org/abs/2405.01470
Data: https://huggingface.co/datasets/allenai/WildChat-1M (ODC-BY 1.0).

An item: "can you help me word a text to my landlord about the heating, its been broken since monday". (The example is ours.)

    inspect eval tasks/wildchat.py --model local/smollm2 -T source=bundled --limit 20
"""

from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.solver import generate

from nla.support.display import visible
from nla.support.errors import DataError
from tasks._shared import DataRow, DataSource, Hub, Role, TaskInfo, content_id, dataset, measured

ITEMS = DataSource(
    bundled=Path(__file__).parent / "data" / "wildchat.jsonl",
    columns="id and text, or conversation (role, content)",
    hub=Hub("allenai/WildChat-1M", "7d6490e462285cf85d91eabea0f9a954fbddcd1f", "train[:20000]"),
)
INFO = TaskInfo(
    title="WildChat: first turns that real people sent to a chatbot. The deployment control on which the noise floor is measured",
    blurb="Real requests of chatbot users, as in deployment; nothing here is an evaluation.",
    role=Role.DEPLOYMENT_CONTROL,
    data=ITEMS,
    licence="ODC-BY 1.0",
)


@task
@measured(INFO)
def wildchat(source: str = "hub", language: str | None = "English") -> Task:
    """First user turns of WildChat, answered once. There is no right answer and no accuracy.

    Args:
        source: hub (the first 20,000 conversations), bundled, or a file with columns id and text, or with the hub's columns.
        language: only conversations in this language, where the data state it; None keeps all.
    """
    rows = [row for row in ITEMS.rows(source) if language is None or row.optional_scalar("language") in (None, language)]
    if not rows:
        raise DataError(f"No conversation of source '{visible(source)}' is in {visible(language, limit=60)}; check -T language.")
    samples = [sample for row in rows if (sample := _sample(row)) is not None]
    return Task(dataset=dataset(samples, "wildchat", source), solver=generate(), version="1-A")


def _sample(row: DataRow) -> Sample | None:
    """The first user turn; None for a conversation of the hub whose first user turn is blank."""
    if "conversation" in row.values:  # the hub's form; its conversation_hash repeats where contents do
        first = next((turn for turn in row.rows("conversation") if turn.optional_scalar("role") == "user"), None)
        if first is None or not first.has("content"):
            return None
        text = first.text("content")
        return Sample(id=content_id(text), input=text, metadata={"id_from_content": True})
    text, row_id = row.text("text"), row.optional_scalar("id")
    metadata = {"category": row.optional_scalar("category"), "id_from_content": row_id is None}
    return Sample(id=row_id or content_id(text), input=text, metadata=metadata)
