"""What Inspect changes in a conversation on its way to the model, so that a prompt can be written again from the sample's messages.

Two generation settings change it: `system_message` puts a message before the conversation, and `reasoning_history` takes the thinking out
of earlier replies.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inspect_ai.model import ChatMessage, ChatMessageAssistant, ChatMessageSystem, GenerateConfig

from nla.support.errors import DataError
from nla.transcripts.chat import reasoning_parts

_KEYS = ("system_message", "reasoning_history")


@dataclass(frozen=True)
class SentConversation:
    """The settings with which a conversation was sent."""

    system_message: str | None = None
    reasoning_history: str | None = None
    """`none` and `last` take thinking out; everything else keeps it."""

    @classmethod
    def from_config(cls, config: GenerateConfig) -> "SentConversation":
        """Return the settings of a call of the model."""
        return cls(config.system_message or None, config.reasoning_history)

    @classmethod
    def from_record(cls, recorded: Mapping[str, Any]) -> "SentConversation":
        """Read the settings from the record of a reply.

        Raises:
            DataError: they are not text.
        """
        values = {name: recorded.get(name) for name in _KEYS}
        if wrong := [name for name, value in values.items() if value is not None and not isinstance(value, str)]:
            raise DataError(f"The log's record of a reply has a {wrong[0]} that is not text; the log is damaged.")
        return cls(**values)

    def recorded(self) -> dict[str, str]:
        """Return what a reply records: the settings that change something."""
        history = self.reasoning_history if self.reasoning_history in ("none", "last") else None
        values = (self.system_message, history)
        return {name: value for name, value in zip(_KEYS, values, strict=True) if value}

    def messages(self, conversation: Sequence[ChatMessage]) -> list[ChatMessage]:
        """Return a conversation as it was sent."""
        sent = list(conversation)
        if self.reasoning_history in ("none", "last"):
            thinking = [index for index, message in enumerate(sent) if _thinks(message)]
            for index in thinking if self.reasoning_history == "none" else thinking[:-1]:
                sent[index] = _without_thinking(sent[index])
        return [ChatMessageSystem(content=self.system_message), *sent] if self.system_message else sent


def _thinks(message: ChatMessage) -> bool:
    return isinstance(message, ChatMessageAssistant) and bool(reasoning_parts(message))


def _without_thinking(message: ChatMessage) -> ChatMessage:
    assert not isinstance(message.content, str)
    return message.model_copy(update={"content": [part for part in message.content if part.type != "reasoning"]})
