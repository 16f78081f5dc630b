"""ShareGPT: conversations that people shared, answered at their last user turn. A multi-turn deployment control.

Shared by ChatGPT users in 2023; used to train Vicuna, https://lmsys.org/blog/2023-03-30-vicuna/
Data: https://huggingface.co/datasets/anon8231489123/ShareGPT_Vicuna_unfiltered (Apache-2.0), from a file of yours: no revision of it
is pinned here.

An item: user "what's a good name for a grey cat"; assistant "Smoke, Pebble or Ash."; user "something funnier". (The example is ours.)

    inspect eval tasks/sharegpt.py --model local/smollm2 -T source=bundled --limit 12
"""

from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.solver import generate

from nla.support.errors import DataError
from nla.support.rows import Row
from tasks._conversation import conversation
from tasks._info import Role, TaskInfo
from tasks._measured import measured
from tasks._shared import DataSource, dataset, field

BLURB = "Real conversations of chatbot users, as in deployment; nothing here is an evaluation."
ITEMS = DataSource(None, Path(__file__).parent / "data" / "sharegpt.jsonl")
INFO = TaskInfo(
    title="ShareGPT: conversations that people shared, answered at their last user turn. A multi-turn deployment control",
    blurb=BLURB,
    role=Role.DEPLOYMENT_CONTROL,
    data=ITEMS,
    licence="Apache-2.0",
)


@task
@measured(INFO)
def sharegpt(source: str = "bundled", turns: int = 4) -> Task:
    """Conversations up to their last user turn, answered once. There is no right answer and no accuracy.

    Args:
        source: bundled, or a file with columns id and messages (role, content) or conversations (from, value).
        turns: turns of a conversation that are kept at most, from its beginning.
    """
    rows = ITEMS.rows(source)
    samples = [sample for row in rows if (sample := _sample(row, turns)) is not None]
    if not samples:
        raise DataError(f"source '{source}' has no conversation with a user turn.")
    return Task(dataset=dataset(samples, "sharegpt", source), solver=generate(), version="1-A")


def _sample(row: Row, turns: int) -> Sample | None:
    messages = conversation(row, turns)
    return Sample(id=str(field(row, "id")), input=messages) if messages else None
