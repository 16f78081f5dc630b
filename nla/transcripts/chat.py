"""Inspect messages as chat templates take them, and a model's raw reply as an assistant message.

The provider writes what it generates from with the functions here, and capture writes transcripts with the same ones, so that activations
are read in the context that the model really saw.
"""

import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from inspect_ai.model import ChatMessage, ChatMessageAssistant, Content, ContentReasoning, ContentText
from inspect_ai.model._providers.util import HFHandler
from inspect_ai.model._reasoning import parse_content_with_reasoning
from inspect_ai.tool import ToolInfo

from nla.support.errors import DataError
from nla.transcripts.thinking import split_summary, split_thinking

_REDACTED = re.compile(r"<think[^>]*\bredacted=\"true\"")
_PAYLOAD = re.compile(r"[\w+/=.:-]{40,}(\s+[\w+/=.:-]{40,})*", re.ASCII)
"""Text without words: long runs of the characters of base64, perhaps on several lines."""
_READABLE = ("text", "reasoning")
"""Types of message content that a text model can be given."""


def with_encrypted_parts(message: ChatMessage) -> ChatMessage:
    """Return a message in which encrypted reasoning that stands in its text as `<think redacted="true">` is a part of its own.

    Inspect writes it so where an API has no other place for it. Only payloads without words count: what can be read stays readable,
    because a model could write the attribute itself to hide its thinking.
    """
    parts = [ContentText(text=message.content)] if isinstance(message.content, str) else message.content
    if not isinstance(message, ChatMessageAssistant) or not any(part.type == "text" and _REDACTED.search(part.text) for part in parts):
        return message
    pieces = [piece for part in parts for piece in (_taken_apart(part) if isinstance(part, ContentText) else [part])]
    return message.model_copy(update={"content": pieces})


def _taken_apart(part: ContentText) -> list[Content]:
    rest, reasoning = parse_content_with_reasoning(part.text)
    if reasoning is None or not reasoning.redacted or not _PAYLOAD.fullmatch(reasoning.reasoning):
        return [part]
    encrypted = ContentReasoning(reasoning=reasoning.reasoning, summary=reasoning.summary, redacted=True)
    return [encrypted, *(_taken_apart(ContentText(text=rest)) if rest else [])]


def template_message(message: ChatMessage) -> dict[str, Any]:
    """Return an Inspect message as chat templates expect it.

    Encrypted reasoning is left out: no model can read it.
    """
    entry: dict[str, Any] = {"role": message.role, "content": message.text}
    if thinking := written_thinking(message):
        entry["reasoning_content"] = thinking
    if message.role == "tool":
        entry["name"] = message.function
        entry["tool_call_id"] = message.tool_call_id
        if message.error is not None:
            entry["content"] = f"Error: {message.error.message}"
    if message.role == "assistant" and message.tool_calls:
        entry["tool_calls"] = [
            {"type": "function", "id": call.id, "function": {"name": call.function, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    return entry


def reasoning_parts(message: ChatMessage) -> list[ContentReasoning]:
    """Return the reasoning of a message, encrypted or not."""
    return [] if isinstance(message.content, str) else [part for part in message.content if isinstance(part, ContentReasoning)]


def reasoning_text(message: ChatMessage) -> str:
    """Return all thinking of a message that a person can read, without tags: of encrypted reasoning, its summary."""
    parts: list[str] = []
    for part in reasoning_parts(message):
        parts.extend(filter(None, (part.summary, "" if part.redacted else part.reasoning)))
    return "\n".join(parts)


def written_thinking(message: ChatMessage) -> str:
    """Return the thinking that the model wrote as tokens of its own, without tags; encrypted reasoning and its summary are not."""
    return "\n".join(part.reasoning for part in reasoning_parts(message) if not part.redacted and part.reasoning)


def has_encrypted_reasoning(message: ChatMessage) -> bool:
    """Return whether a message holds reasoning that only its provider can read."""
    return any(part.redacted for part in reasoning_parts(message))


def refuse_unreadable(messages: Sequence[ChatMessage], sample: object = None) -> None:
    """Refuse images, audio, video, documents and the like, which a text model would not see.

    Args:
        messages: the conversation.
        sample: id of the sample, for the message; None where it is not known.

    Raises:
        DataError: a message holds something else than text and reasoning.
    """
    where = "" if sample is None else f"Sample {sample!r}: "
    for index, message in enumerate(messages):
        kinds = set() if isinstance(message.content, str) else {part.type for part in message.content} - set(_READABLE)
        if kinds:
            raise DataError(
                f"{where}message {index} ({message.role}) holds {', '.join(sorted(kinds))}; expected text only, since the model cannot see "
                "anything else. Leave the sample out (--sample-id), or use a task of text."
            )


def assistant_message(text: str, tools: Sequence[ToolInfo], *, model: str, family: str, opened: bool = False) -> ChatMessageAssistant:
    """Return an assistant message for a raw reply: thinking split off, tool calls parsed by Inspect's own handler.

    Attributes of a thinking tag are ignored: a model could write that its thinking is encrypted, and so hide it.

    Args:
        text: decoded reply without special tokens.
        tools: tools offered; without any, nothing is parsed as a call.
        model: name to record.
        family: name by which Inspect's handler chooses the calling convention.
        opened: whether the prompt had opened the thinking block.
    """
    thinking, answer = split_thinking(text, opened)
    message = ChatMessageAssistant(content=answer, model=model, source="generate")
    if tools:
        with suppress(ValueError, TypeError, KeyError, RecursionError):  # a reply that only looks like a call is an answer
            message = HFHandler(model, family).parse_assistant_response(answer, list(tools))
    if thinking:
        reasoning, summary = split_summary(thinking)
        content: list[Content] = [ContentReasoning(reasoning=reasoning, summary=summary)]
        message.content = [*content, ContentText(text=message.text)] if message.text else content
    return message
