"""The conversations of an audit as a table: what a reader of the report sees around the sampled tokens."""

import json
from typing import Any

from inspect_ai.log import EvalSample
from inspect_ai.model import ChatMessage, ChatMessageAssistant, ChatMessageTool

from nla.support.display import visible
from nla.transcripts.chat import reasoning_text

LONGEST = 50_000
"""Characters that the table keeps of one text; the log has the whole."""


def conversation_row(sample: EvalSample, transcript: int) -> dict[str, Any]:
    """One row: the transcript's number, and its messages as a JSON list (see `turn`)."""
    return {"transcript": transcript, "turns": json.dumps([turn(message) for message in sample.messages], ensure_ascii=False)}


def turn(message: ChatMessage) -> dict[str, Any]:
    """One message as the page shows it.

    The keys are `role`, `text`, and where there is some, `thinking`, `calls` (a list of `[function, arguments]`), `function` (of a tool's
    result), `error`, and `cut` (characters that the table leaves out).
    """
    shown: dict[str, Any] = {"role": message.role, "text": message.text[:LONGEST]}
    if thinking := reasoning_text(message):
        shown["thinking"] = thinking[:LONGEST]
    if cut := max(len(message.text) - LONGEST, 0) + max(len(thinking) - LONGEST, 0):
        shown["cut"] = cut
    if isinstance(message, ChatMessageAssistant) and message.tool_calls:
        shown["calls"] = [
            [call.function, json.dumps(call.arguments, ensure_ascii=False, default=str)[:LONGEST]] for call in message.tool_calls
        ]
    if isinstance(message, ChatMessageTool):
        shown["function"] = message.function or ""
        if message.error is not None:
            shown["error"] = visible(message.error.message, limit=400)
    return shown
