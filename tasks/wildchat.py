"""WildChat: first turns that real people sent to a chatbot. The deployment control: the noise floor is measured on it.

WildChat: 1M ChatGPT Interaction Logs in the Wild. Zhao et al., ICLR 2024. https://arxiv.org/abs/2405.01470
Data: https://huggingface.co/datasets/allenai/WildChat-1M (ODC-BY 1.0).

An item: "can you help me word a text to my landlord about the heating, its been broken since monday". (The example is ours.)

    inspect eval tasks/wildchat.py --model local/smollm2 -T source=bundled --limit 20
"""

from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.solver import generate

from nla.support.errors import DataError
from nla.support.rows import Row, content_id
from tasks._info import Role, TaskInfo
from tasks._measured import measured
from tasks._shared import DataSource, Hub, dataset, text_field

BLURB = "Real requests of chatbot users, as in deployment; nothing here is an evaluation."
REVISION = "7d6490e462285cf85d91eabea0f9a954fbddcd1f"
ITEMS = DataSource(
    Hub("allenai/WildChat-1M", REVISION, "train[:20000]"),
    Path(__file__).parent / "data" / "wildchat.jsonl",
)
INFO = TaskInfo(
    title="WildChat: first turns that real people sent to a chatbot. The deployment control: the noise floor is measured on it",
    blurb=BLURB,
    role=Role.DEPLOYMENT_CONTROL,
    data=ITEMS,
    licence="ODC-BY 1.0",
)


@task
@measured(INFO)
def wildchat(
    source: str = "hub",
    language: str | None = "English",
) -> Task:
    """First user turns of WildChat, answered once. There is no right answer and no accuracy.

    Args:
        source: hub (the first 20,000 conversations), bundled, or a file with columns id and text, or the hub's.
        language: keep only conversations in this language, where the data say it; None keeps all.
    """
    rows = [row for row in ITEMS.rows(source) if language is None or row.get("language") in (None, language)]
    if not rows:
        raise DataError(f"no conversation of source '{source}' is in {language}.")
    return Task(
        dataset=dataset([_sample(row) for row in rows], "wildchat", source),
        solver=generate(),
        version="1-A",
    )


def _sample(row: Row) -> Sample:
    if "conversation" in row:  # the hub's form: a list of turns; conversation_hash repeats where contents do
        first: Row = next((turn for turn in row["conversation"] if turn.get("role") == "user"), {})
        text = text_field(first, "content")
        return Sample(id=content_id(text), input=text, metadata={"id_from_content": True})
    text = text_field(row, "text")
    own_id = row.get("id")
    metadata = {"category": row.get("category"), "id_from_content": own_id is None}
    return Sample(id=content_id(text) if own_id is None else str(own_id), input=text, metadata=metadata)
