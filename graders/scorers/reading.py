"""What the scorers that read weights share: their work runs in threads, a limited number of transcripts at once."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
from inspect_ai.solver import TaskState
from inspect_ai.tool import ToolDef, ToolInfo
from inspect_ai.util import concurrency

if TYPE_CHECKING:
    from nla.transcripts.tokens import TokenRef

TRANSCRIPTS_AT_ONCE = 32
"""Transcripts that are read concurrently. Their vectors share the verbalizer's batch; one transcript would leave it almost empty."""
Result = TypeVar("Result")


async def in_thread(work: Callable[[], Result]) -> Result:
    """Run blocking work on one transcript in a thread, when fewer than `TRANSCRIPTS_AT_ONCE` are being read.

    Raises:
        Exception: whatever `work` raised.
    """
    async with concurrency("nla", TRANSCRIPTS_AT_ONCE):
        return await anyio.to_thread.run_sync(work)


def token_place(token: "TokenRef", text: str, start: int | None) -> dict[str, Any]:
    """The fields of a `graders.score_record.SampledToken`.

    Args:
        token: the token.
        text: the token as text.
        start: where it stands in the text of its message (`nla.transcripts.starts.text_starts`).
    """
    return {
        "token": text,
        "pass_index": token.pass_index,
        "position": token.position,
        "message": token.message,
        "channel": token.channel.name.lower(),
        "start": start,
    }


def tool_infos(state: TaskState) -> list[ToolInfo]:
    """Tools offered in the live state; replies of the `local/` provider have their own record of them."""
    tools = [ToolDef(tool) for tool in state.tools]
    return [ToolInfo(name=tool.name, description=tool.description, parameters=tool.parameters) for tool in tools]
