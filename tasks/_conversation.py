"""Rows that hold a whole conversation, as messages that end in a user's turn."""

import json
from typing import Any

from inspect_ai.model import ChatMessage, ChatMessageAssistant, ChatMessageUser

from nla.support.rows import Row
from tasks._shared import field

MAKE: dict[str, type[ChatMessageUser] | type[ChatMessageAssistant]] = {
    "user": ChatMessageUser, "human": ChatMessageUser, "assistant": ChatMessageAssistant, "gpt": ChatMessageAssistant,
}  # fmt: skip


def conversation(row: Row, turns: int) -> list[ChatMessage]:
    """A row's `messages` (role, content) or `conversations` (from, value), cut after the last user turn of the first `turns`.

    Empty where it has no user turn.
    """
    found: Any = field(row, "messages", "conversations")
    listed = json.loads(found) if isinstance(found, str) else list(found)
    messages: list[ChatMessage] = []
    for turn in listed[:turns]:
        role, text = str(turn.get("role", turn.get("from"))), str(turn.get("content", turn.get("value", "")))
        if role not in MAKE or not text.strip():
            break
        messages.append(MAKE[role](content=text))
    while messages and messages[-1].role != "user":
        messages.pop()
    return messages
