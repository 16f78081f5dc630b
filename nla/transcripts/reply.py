"""One reply of the model as token ids: recorded by the `local/` provider, or tokenised from a log's text, by channel."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from inspect_ai.model import ChatMessage, ChatMessageAssistant
from inspect_ai.tool import ToolInfo
from transformers import PreTrainedTokenizerBase

from nla.models.chat_template import THINK_CLOSE, THINK_OPEN, encode_content, tokenizer_fingerprint
from nla.support.errors import DataError
from nla.transcripts.chat import reasoning_text
from nla.transcripts.tokens import Channel

RECORD_KEY = "local_tokens"
"""Key in an assistant message's metadata under which the `local/` provider records what it generated."""


_TAGGED_CALL = re.compile(r"<tool_call>.*?(?:</tool_call>|\Z)|<function\b[^>]*>.*?(?:</function>|\Z)|```json\s*\{.*?(?:```|\Z)", re.DOTALL)
_BARE_CALL = re.compile(r"\{.*\}", re.DOTALL)


@dataclass(frozen=True)
class Reply:
    """Token ids `[pos]` of a reply, without the token that ended it, and the channel of each."""

    ids: list[int]
    channels: list[Channel]
    recorded: bool
    """Whether the ids are the generated ones rather than re-tokenised text."""
    n_prompt: int | None
    """How many tokens stood before the reply when it was generated, if that was recorded."""


def record(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], n_prompt: int, tools: Sequence[ToolInfo]) -> dict[str, Any]:
    """Metadata for a generated message: the ids without the ending token, whose ids they are, the prompt's length, the tools offered."""
    entry: dict[str, Any] = {"ids": list(ids), "tokenizer": tokenizer_fingerprint(tokenizer), "n_prompt": n_prompt}
    if tools:
        entry["tools"] = [tool.model_dump(exclude_none=True) for tool in tools]
    return {RECORD_KEY: entry}


def is_reply(message: ChatMessage) -> bool:
    """Whether the model under audit wrote the message (an assistant message given as input is context)."""
    return isinstance(message, ChatMessageAssistant) and message.source != "input"


def keeps_its_tokens(message: ChatMessage) -> bool:
    """Whether a reply stands in later prompts with its own tokens.

    Not so with thinking, since templates decide whether old thinking stays, nor with tool calls of another provider, whose
    text only the template knows.
    """
    if not isinstance(message, ChatMessageAssistant) or not is_reply(message) or reasoning_text(message):
        return False
    return bool(_record_of(message)) or not message.tool_calls


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

    Raises:
        DataError: the recorded ids are another tokenizer's.
    """
    found = _record_of(message)
    if found:
        if found.get("tokenizer") != (own := tokenizer_fingerprint(tokenizer)):
            raise DataError(
                f"a reply was recorded with another model's tokenizer ({found.get('tokenizer')}, expected {own}); "
                "score the log with the model that wrote it."
            )
        ids = [int(i) for i in found["ids"]]
        return Reply(ids, _channels(tokenizer, ids, message, opened), True, found.get("n_prompt"))
    thinking, text = reasoning_text(message), message.text
    if thinking:
        text = f"{'' if opened else THINK_OPEN}\n{thinking}\n{THINK_CLOSE}\n\n{text}"
    ids = encode_content(tokenizer, text)
    return Reply(ids, _channels(tokenizer, ids, message, opened and bool(thinking)), False, None)


def _channels(tokenizer: PreTrainedTokenizerBase, ids: list[int], message: ChatMessageAssistant, opened: bool) -> list[Channel]:
    text = tokenizer.decode(ids, skip_special_tokens=False)
    assert isinstance(text, str)
    if not (opened or message.tool_calls or offered_tools(message, ()) or text.lstrip().startswith(THINK_OPEN)):
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
    for first, stop in _call_spans(text, message, at):
        out.append((first, Channel.ANSWER))
        out.append((stop, Channel.TOOL_CALL))
    out.append((len(text), Channel.ANSWER))
    return out


def _call_spans(text: str, message: ChatMessageAssistant, start: int) -> list[tuple[int, int]]:
    """Character spans of tool calls after `start`, unfinished ones included, in the forms that Inspect's handler parses."""
    if not (message.tool_calls or offered_tools(message, ())):
        return []
    spans = [found.span() for found in _TAGGED_CALL.finditer(text, start)]
    if not spans and message.tool_calls:  # Llama's convention: a bare JSON object
        spans = [found.span() for found in _BARE_CALL.finditer(text, start)]
    return spans


def tokens_within(tokenizer: PreTrainedTokenizerBase, ids: list[int], end: int, *, skip_special: bool = False) -> int:
    """How many leading tokens lie wholly before character `end` of the text, decoded with or without special tokens."""
    low, high = 0, len(ids)
    while low < high:
        middle = (low + high + 1) // 2
        if len(tokenizer.decode(ids[:middle], skip_special_tokens=skip_special)) <= end:
            low = middle
        else:
            high = middle - 1
    return low


def _record_of(message: ChatMessageAssistant) -> dict[str, Any]:
    found = (message.metadata or {}).get(RECORD_KEY)
    return found if isinstance(found, dict) and "ids" in found else {}
