"""ShareGPT: conversations that people shared, answered at their last user turn. A multi-turn deployment control.

Shared by ChatGPT users in 2023; used to train Vicuna, https://lmsys.org/blog/2023-03-30-vicuna/
Data: https://huggingface.co/datasets/anon8231489123/ShareGPT_Vicuna_unfiltered (Apache-2.0); give your copy of it, since no revision is
pinned here.

An item: user "what's a good name for a grey cat"; assistant "Smoke, Pebble or Ash."; user "something funnier". (The example is ours.)

    inspect eval tasks/sharegpt.py --model local/smollm2 -T source=bundled --limit 12
"""

from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.solver import generate
from pydantic import PositiveInt

from tasks._shared import DataRow, DataSource, Role, TaskInfo, conversation, dataset, measured

ITEMS = DataSource(
    bundled=Path(__file__).parent / "data" / "sharegpt.jsonl",
    columns="id and messages (role, content), or id and conversations (from, value)",
)
INFO = TaskInfo(
    title="ShareGPT: conversations that people shared, answered at their last user turn. A multi-turn deployment control",
    blurb="Real conversations of chatbot users, as in deployment; nothing here is an evaluation.",
    role=Role.DEPLOYMENT_CONTROL,
    data=ITEMS,
    licence="Apache-2.0",
)


@task
@measured(INFO)
def sharegpt(source: str | None = None, turns: PositiveInt = 4) -> Task:
    """Conversations up to their last user turn, answered once. There is no right answer and no accuracy.

    Args:
        source: bundled, or a file with columns id and messages (role, content) or conversations (from, value). Conversations without
            a user turn are left out.
        turns: number of turns of a conversation that are kept at most, from its beginning.
    """
    samples = [sample for row in ITEMS.rows(source) if (sample := _sample(row, turns)) is not None]
    return Task(dataset=dataset(samples, "sharegpt", source), solver=generate(), version="1-A")


def _sample(row: DataRow, turns: int) -> Sample | None:
    messages = conversation(row, turns)
    return Sample(id=row.scalar("id"), input=messages) if messages else None
