"""One reply of the model as token ids: recorded by the `local/` provider, or tokenised from a log's text, by channel."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from inspect_ai.model import ChatMessage, ChatMessageAssistant
from inspect_ai.tool import ToolInfo
from transformers import PreTrainedTokenizerBase

from nla.chat import THINK_CLOSE, THINK_OPEN, encode, reasoning_text

RECORD_KEY = "local_tokens"
"""Key in an assistant message's metadata under which the `local/` provider records what it generated."""


class Channel(IntEnum):
    """What a token belongs to. Only `THINKING` and `ANSWER` are response tokens."""

    SCAFFOLD = 0
    CONTEXT = 1
    THINKING = 2
    ANSWER = 3
    TOOL_CALL = 4


@dataclass(frozen=True)
class Reply:
    """Token ids `[pos]` of a reply, without the token that ended it, and the channel of each."""

    ids: list[int]
    channels: list[Channel]
    recorded: bool
    """Whether the ids are the generated ones rather than re-tokenised text."""
    n_prompt: int | None
    """How many tokens stood before the reply when it was generated, if that was recorded."""


def record(ids: Sequence[int], n_prompt: int, tools: Sequence[ToolInfo]) -> dict[str, Any]:
    """Metadata for a generated message: the generated ids without the ending token, the prompt's length, the tools offered."""
    entry: dict[str, Any] = {"ids": list(ids), "n_prompt": n_prompt}
    if tools:
        entry["tools"] = [tool.model_dump(exclude_none=True) for tool in tools]
    return {RECORD_KEY: entry}


def is_reply(message: ChatMessage) -> bool:
    """Whether the model under audit wrote the message (an assistant message given as input is context)."""
    return isinstance(message, ChatMessageAssistant) and message.source != "input"


def offered_tools(message: ChatMessageAssistant, default: Sequence[ToolInfo]) -> list[ToolInfo]:
    """The tools that were offered when a reply was generated; `default` where that was not recorded."""
    found = _record_of(message)
    return [ToolInfo.model_validate(tool) for tool in found.get("tools", [])] if found else list(default)


def reply_of(tokenizer: PreTrainedTokenizerBase, message: ChatMessageAssistant, opened: bool) -> Reply:
    """The tokens of a reply.

    Args:
        tokenizer: the model's tokenizer.
        message: the reply.
        opened: its prompt had opened the thinking block.
    """
    found = _record_of(message)
    if found:
        ids = [int(i) for i in found["ids"]]
        return Reply(ids, _channels(tokenizer, ids, message, opened), True, found.get("n_prompt"))
    thinking, text = reasoning_text(message), message.text
    if thinking:
        text = f"{'' if opened else THINK_OPEN}\n{thinking}\n{THINK_CLOSE}\n\n{text}"
    ids = encode(tokenizer, text)
    return Reply(ids, _channels(tokenizer, ids, message, opened and bool(thinking)), False, None)


def _channels(tokenizer: PreTrainedTokenizerBase, ids: list[int], message: ChatMessageAssistant, opened: bool) -> list[Channel]:
    text = tokenizer.decode(ids, skip_special_tokens=False)
    assert isinstance(text, str)
    if not (opened or message.tool_calls or text.lstrip().startswith(THINK_OPEN)):
        return [Channel.ANSWER] * len(ids)
    channels: list[Channel] = []
    for end, channel in _segments(text, message, opened):
        upto = len(ids) if end >= len(text) else tokens_within(tokenizer, ids, end)
        channels.extend([channel] * (upto - len(channels)))
    return channels


def _segments(text: str, message: ChatMessageAssistant, opened: bool) -> list[tuple[int, Channel]]:
    """(end, channel) of consecutive stretches of a reply's text."""
    out: list[tuple[int, Channel]] = []
    at = 0
    if opened or text.lstrip().startswith(THINK_OPEN):
        start = 0 if opened else text.index(THINK_OPEN) + len(THINK_OPEN)
        close = text.find(THINK_CLOSE)
        out.append((start, Channel.SCAFFOLD))
        out.append((close if close >= 0 else len(text), Channel.THINKING))
        at = close + len(THINK_CLOSE) if close >= 0 else len(text)
        out.append((at, Channel.SCAFFOLD))
    if message.tool_calls:
        # The parsed answer is the text with the calls cut out, so whatever is not found of it belongs to a call.
        for part in filter(None, (part.strip() for part in message.text.split("\n\n"))):
            found = text.find(part, at)
            if found >= 0:
                out.append((found, Channel.TOOL_CALL if text[at:found].strip() else Channel.ANSWER))
                at = found + len(part)
                out.append((at, Channel.ANSWER))
    out.append((len(text), Channel.TOOL_CALL if message.tool_calls else Channel.ANSWER))
    return out


def tokens_within(tokenizer: PreTrainedTokenizerBase, ids: list[int], end: int) -> int:
    """How many leading tokens lie wholly before character `end` of the decoded text."""
    low, high = 0, len(ids)
    while low < high:
        middle = (low + high + 1) // 2
        if len(tokenizer.decode(ids[:middle], skip_special_tokens=False)) <= end:
            low = middle
        else:
            high = middle - 1
    return low


def _record_of(message: ChatMessageAssistant) -> dict[str, Any]:
    found = (message.metadata or {}).get(RECORD_KEY)
    return found if isinstance(found, dict) and "ids" in found else {}
