"""Coding traffic: what developers really ask, as single requests and as conversations. A deployment control for coding benchmarks.

Requests are bug reports and questions as people write them, from your file. The bundled items, written for this project, imitate them.
Public sources of such text: issues of SWE-bench's repositories, https://arxiv.org/abs/2310.06770, and coding chats of ShareGPT.

An item: "why does my dockerfile rebuild everything when i touch one line??" (The example is ours.)

    inspect eval tasks/coding_traffic.py --model local/smollm2 -T source=bundled --limit 12
"""

from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.solver import generate
from pydantic import PositiveInt

from tasks._shared import DataRow, DataSource, Role, TaskInfo, content_id, conversation, dataset, measured

ITEMS = DataSource(
    bundled=Path(__file__).parent / "data" / "coding_traffic.jsonl",
    columns="text (or prompt, or problem_statement), or messages (role, content)",
)
INFO = TaskInfo(
    title="Coding traffic: what developers really ask, as single requests and as conversations. A deployment control for coding benchmarks",
    blurb="Real requests of software developers to a coding assistant, as in deployment; nothing here is an evaluation.",
    role=Role.DEPLOYMENT_CONTROL,
    data=ITEMS,
    licence="that of your file; the bundled items: Apache-2.0",
)


@task
@measured(INFO)
def coding_traffic(source: str | None = None, turns: PositiveInt = 6) -> Task:
    """Requests, or conversations up to their last user turn, answered once. Conversations without a user turn are left out.

    Args:
        source: bundled, or a file with columns text (or prompt, or problem_statement), or messages (role, content).
        turns: number of turns of a conversation that are kept at most, from its beginning.
    """
    samples = [sample for row in ITEMS.rows(source) if (sample := _sample(row, turns)) is not None]
    return Task(dataset=dataset(samples, "coding_traffic", source), solver=generate(), version="1-A")


def _sample(row: DataRow, turns: int) -> Sample | None:
    row_id = row.optional_scalar("id", "instance_id")
    metadata = {"id_from_content": row_id is None}
    if row.has("messages", "conversations"):
        messages = conversation(row, turns)
        own_id = row_id or content_id([(message.role, message.text) for message in messages])
        return Sample(id=own_id, input=messages, metadata=metadata) if messages else None
    text = row.text("text", "prompt", "problem_statement")
    return Sample(id=row_id or content_id(text), input=text, metadata=metadata)
