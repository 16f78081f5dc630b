"""Rows that hold a whole conversation, as messages that end in a user's turn."""

from inspect_ai.model import ChatMessage, ChatMessageAssistant, ChatMessageUser

from tasks._fields import DataRow

_MESSAGE_CLASSES: dict[str, type[ChatMessageUser] | type[ChatMessageAssistant]] = {
    "user": ChatMessageUser, "human": ChatMessageUser, "assistant": ChatMessageAssistant, "gpt": ChatMessageAssistant,
}  # fmt: skip


def conversation(row: DataRow, turns: int) -> list[ChatMessage]:
    """A row's `messages` (role, content) or `conversations` (from, value), cut after the last user turn of the first `turns`.

    A conversation is also cut before the first turn that is blank or neither the user's nor the assistant's. The result is empty where
    no user turn is left.

    Raises:
        DataError: the row has neither column, or a turn is not a role and a text.
    """
    messages: list[ChatMessage] = []
    for turn in row.rows("messages", "conversations")[:turns]:
        role = turn.scalar("role", "from")
        if role not in _MESSAGE_CLASSES or not turn.has("content", "value"):
            break
        content = turn.scalar("content", "value")
        messages.append(_MESSAGE_CLASSES[role](content=content))
    while messages and messages[-1].role != "user":
        messages.pop()
    return messages
