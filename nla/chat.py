"""Inspect messages to prompt text through a model's chat template, and a model's raw reply back to an assistant message.

The provider renders what it generates from with the functions here, and capture renders transcripts with the same ones, so
that activations are read in the context the model really saw.
"""

import functools
import hashlib
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from inspect_ai.model import ChatMessage, ChatMessageAssistant, Content, ContentReasoning, ContentText
from inspect_ai.model._providers.util import HFHandler
from inspect_ai.tool import ToolInfo
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from nla.errors import ModelError

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"

_TOOL_PROMPT = """You may call these functions:
{tools}
To call one, write a JSON object with its name and arguments inside tags, and nothing after it:
<tool_call>{{"name": NAME, "arguments": {{...}}}}</tool_call>"""


def require_chat_template(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Raise a `ModelError` if the tokenizer has no chat template (a base model)."""
    if not tokenizer.chat_template:
        raise ModelError(
            f"{name} has no chat template, so it is probably a base model; use its instruction-tuned version, "
            "or a folder whose tokenizer_config.json has a chat_template."
        )


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


def render(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict[str, Any]], tools: Sequence[ToolInfo], *, add_generation_prompt: bool
) -> str:
    """Prompt text of a conversation.

    Two things templates differ in are evened out: where a template takes no tools, they are described in the system message
    and calls are written as `<tool_call>` text; where it takes no system message (Gemma 2), it leads the first user message.

    Raises:
        ModelError: the template refuses the conversation.
    """
    messages = list(messages)
    template = str(tokenizer.chat_template)
    schemas: list[dict[str, Any]] | None = None
    if "tools" in template:
        schemas = [{"type": "function", "function": tool.model_dump(exclude_none=True)} for tool in tools] or None
    else:
        messages = _tools_as_text(messages, tools)
    try:
        return _apply(tokenizer, messages, schemas, add_generation_prompt)
    except TemplateError as ex:
        if messages and messages[0]["role"] == "system":
            return _apply(tokenizer, _without_system(messages), schemas, add_generation_prompt)
        raise ModelError(f"the chat template refuses this conversation: {ex}") from ex


def _apply(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, add_generation_prompt: bool
) -> str:
    text = tokenizer.apply_chat_template(messages, tools=tools, add_generation_prompt=add_generation_prompt, tokenize=False)  # type: ignore[arg-type]
    assert isinstance(text, str)
    return text


def _tools_as_text(messages: list[dict[str, Any]], tools: Sequence[ToolInfo]) -> list[dict[str, Any]]:
    out = []
    for message in messages:
        calls = message.get("tool_calls") or []
        texts = ["<tool_call>" + json.dumps({k: c["function"][k] for k in ("name", "arguments")}) + "</tool_call>" for c in calls]
        plain = {k: v for k, v in message.items() if k != "tool_calls"}
        out.append(plain | {"content": "\n".join(filter(None, [plain["content"], *texts]))})
    if not tools:
        return out
    described = _TOOL_PROMPT.format(tools="\n".join(json.dumps(tool.model_dump(exclude_none=True)) for tool in tools))
    if out and out[0]["role"] == "system":
        return [out[0] | {"content": f"{out[0]['content']}\n\n{described}"}, *out[1:]]
    return [{"role": "system", "content": described}, *out]


def _without_system(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    system, *rest = messages
    if not rest:
        return [{"role": "user", "content": system["content"]}]
    return [rest[0] | {"content": f"{system['content']}\n\n{rest[0]['content']}"}, *rest[1:]]


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of rendered text. Templates write every special token themselves, so none is added (no second BOS)."""
    return list(tokenizer.encode(text, add_special_tokens=False))


def reasoning_text(message: ChatMessage) -> str:
    """The thinking of a message, without tags; empty where there is none."""
    if isinstance(message.content, str):
        return ""
    return "\n".join(part.reasoning for part in message.content if isinstance(part, ContentReasoning))


def encode_content(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of untrusted text: what looks like a control token in it stays ordinary text."""
    return list(tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))


@functools.lru_cache(maxsize=16)
def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Identifies a vocabulary: 12 hex digits of the sha256 of its tokens and ids."""
    vocabulary = json.dumps(sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]))
    return hashlib.sha256(vocabulary.encode()).hexdigest()[:12]


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
