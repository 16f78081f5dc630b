"""Coding traffic: what developers really ask, as single requests and as conversations. A control for coding benchmarks.

Requests are bug reports and questions as people write them, from a file of yours or the bundled set (written for this project). Public
sources of such text: issues of SWE-bench's repositories, https://arxiv.org/abs/2310.06770, and coding chats of ShareGPT.

An item: "why does my dockerfile rebuild everything when i touch one line??"; (The example is ours.)

    inspect eval tasks/coding_traffic.py --model local/smollm2 -T source=bundled --limit 12
"""

from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.solver import generate

from nla.support.errors import DataError
from nla.support.rows import Row, content_id
from tasks._conversation import conversation
from tasks._info import Role, TaskInfo
from tasks._measured import measured
from tasks._shared import DataSource, dataset, text_field

BLURB = "Real requests of software developers to a coding assistant, as in deployment; nothing here is an evaluation."
ITEMS = DataSource(None, Path(__file__).parent / "data" / "coding_traffic.jsonl")
INFO = TaskInfo(
    title="Coding traffic: what developers really ask, as single requests and as conversations. A control for coding benchmarks",
    blurb=BLURB,
    role=Role.DEPLOYMENT_CONTROL,
    data=ITEMS,
)


@task
@measured(INFO)
def coding_traffic(source: str = "bundled", turns: int = 6) -> Task:
    """Requests, or conversations up to their last user turn, answered once.

    Args:
        source: bundled, or a file with columns text (or prompt, or problem_statement), or messages (role, content).
        turns: turns of a conversation that are kept at most, from its beginning.
    """
    samples = [sample for row in ITEMS.rows(source) if (sample := _sample(row, turns)) is not None]
    if not samples:
        raise DataError(f"source '{source}' has no request.")
    return Task(dataset=dataset(samples, "coding_traffic", source), solver=generate(), version="1-A")


def _sample(row: Row, turns: int) -> Sample | None:
    own_id = row.get("id", row.get("instance_id"))
    if row.get("messages"):
        messages = conversation(row, turns)
        return Sample(id=str(own_id), input=messages) if messages else None
    text = text_field(row, "text", "prompt", "problem_statement")
    return Sample(id=str(own_id or content_id(text)), input=text, metadata={"id_from_content": own_id is None})
