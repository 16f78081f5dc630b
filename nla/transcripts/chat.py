"""Inspect messages to prompt text through a model's chat template, and a model's raw reply back to an assistant message.

The provider renders what it generates from with the functions here, and capture renders transcripts with the same ones, so
that activations are read in the context the model really saw.
"""

import re
from contextlib import suppress
from typing import Any

from inspect_ai.model import ChatMessage, ChatMessageAssistant, Content, ContentReasoning, ContentText
from inspect_ai.model._providers.util import HFHandler
from inspect_ai.tool import ToolInfo

from nla.models.chat_template import THINK_CLOSE, THINK_OPEN


def template_message(message: ChatMessage, content: str | None = None) -> dict[str, Any]:
    """An Inspect message as chat templates expect it; `content` stands for all that an assistant message holds."""
    entry: dict[str, Any] = {"role": message.role, "content": message.text if content is None else content}
    if content is None and (thinking := reasoning_text(message)):
        entry["reasoning_content"] = thinking
    if message.role == "tool":
        entry["name"] = message.function
        if message.error is not None:
            entry["content"] = f"Error: {message.error.message}"
    if message.role == "assistant" and content is None and message.tool_calls:
        entry["tool_calls"] = [
            {"type": "function", "id": call.id, "function": {"name": call.function, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    return entry


def reasoning_text(message: ChatMessage) -> str:
    """The thinking of a message, without tags; empty where there is none."""
    if isinstance(message.content, str):
        return ""
    return "\n".join(part.reasoning for part in message.content if isinstance(part, ContentReasoning))


def thinking_opened(prompt: str) -> bool:
    """Whether a rendered prompt ends inside an open thinking block (templates of some reasoning models open it)."""
    return prompt.rstrip().endswith(THINK_OPEN)


def split_thinking(text: str, opened: bool = False) -> tuple[str, str]:
    """(thinking, answer) of a raw reply. `opened`: the prompt had opened the block already. An unclosed block is all thinking."""
    body = text if opened else None
    if body is None:
        match = re.match(rf"\s*{THINK_OPEN}", text)
        if match is None:
            return "", text
        body = text[match.end() :]
    thinking, closed, answer = body.partition(THINK_CLOSE)
    return thinking.strip(), answer.lstrip("\n") if closed else ""


def assistant_message(text: str, tools: list[ToolInfo], *, model: str, family: str, opened: bool = False) -> ChatMessageAssistant:
    """An assistant message from a raw reply: thinking split off, tool calls parsed by Inspect's own handler.

    Args:
        text: decoded reply without special tokens.
        tools: tools offered; without any, nothing is parsed as a call.
        model: name to record.
        family: name by which Inspect's handler chooses the calling convention.
        opened: the prompt had opened the thinking block.
    """
    thinking, answer = split_thinking(text, opened)
    message = ChatMessageAssistant(content=answer, model=model, source="generate")
    if tools:
        with suppress(ValueError):  # a reply that only looks like a call is an answer
            message = HFHandler(model, family).parse_assistant_response(answer, tools)
    if thinking:
        content: list[Content] = [ContentReasoning(reasoning=thinking)]
        message.content = [*content, ContentText(text=message.text)] if message.text else content
    return message
