"""One reply of the model as token ids: those that the `local/` provider recorded, or the tokens of a log's text; each with its channel."""

import hashlib
import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from inspect_ai.model import ChatMessage, ChatMessageAssistant
from inspect_ai.tool import ToolInfo
from pydantic import ValidationError
from transformers import PreTrainedTokenizerBase

from nla.models.chat_template import THINK_CLOSE, THINK_OPEN, tokenizer_fingerprint
from nla.models.control_tokens import encode_pieces
from nla.models.marks import Piece
from nla.support.errors import DataError
from nla.transcripts.borders import decoded, tokens_within
from nla.transcripts.chat import reasoning_parts, written_thinking
from nla.transcripts.sent import SentConversation
from nla.transcripts.thinking import thinking_block
from nla.transcripts.tokens import Channel

RECORD_KEY = "local_tokens"
"""Key in an assistant message's metadata under which the `local/` provider records what it generated."""
_PADDED_VOCABULARY = 4_096
"""Ids beyond the tokenizer's that a model may have, since embeddings are padded to round numbers."""
_TAGGED_CALL = re.compile(r"<tool_call>.*?(?:</tool_call>|\Z)|<function\b[^>]*>.*?(?:</function>|\Z)|```json\s*\{.*?(?:```|\Z)", re.DOTALL)
_BARE_CALL = re.compile(r"\{.*\}", re.DOTALL)
_NOT_WORDS = re.compile(r"\s|</?think[^>]*>")


@dataclass(frozen=True)
class Reply:
    """Token ids `[pos]` of a reply, without the token that ended it, and the channel of each."""

    ids: list[int]
    channels: list[Channel]
    recorded: bool
    """Whether the ids are the generated ones rather than those of its text."""
    n_prompt: int | None = None
    """Number of tokens before the reply when it was generated, if that was recorded."""
    prompt_digest: str | None = None
    """Digest of those tokens, if that was recorded."""
    clock: str | None = None
    """Time (ISO format) that the chat template wrote into the prompt, if it wrote one."""


def digest_of(ids: Sequence[int]) -> str:
    """Return 16 hex digits of the sha256 of token ids."""
    return hashlib.sha256(array("q", ids).tobytes()).hexdigest()[:16]


def _words_digest(message: ChatMessage) -> str:
    """Digest of a message's thinking and text without white space and tags, which Inspect may move when a log is read."""
    words = "".join((part.summary or "") + part.reasoning for part in reasoning_parts(message)) + message.text
    return hashlib.sha256(_NOT_WORDS.sub("", words).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def record(
    tokenizer: PreTrainedTokenizerBase,
    ids: Sequence[int],
    n_prompt: int,
    tools: Sequence[ToolInfo],
    *,
    prompt: Sequence[int] | None = None,
    clock: str | None = None,
    message: ChatMessage | None = None,
    sent: SentConversation | None = None,
) -> dict[str, Any]:
    """Return the metadata of a generated message.

    Args:
        tokenizer: the model's tokenizer, whose ids they are.
        ids: the reply's token ids without the token that ended it.
        n_prompt: number of tokens of its prompt.
        tools: the tools that were offered.
        prompt: token ids of the prompt; their digest is recorded, so that a prompt that is written again can be compared with it.
        clock: the time that the chat template wrote into the prompt, with which it is written again.
        message: the reply as a message; a digest of its words tells later whether somebody edited it.
        sent: how the conversation that was sent to the model differs from the sample's.
    """
    entry: dict[str, Any] = {"ids": list(ids), "tokenizer": tokenizer_fingerprint(tokenizer), "n_prompt": n_prompt}
    if tools:
        entry["tools"] = [tool.model_dump(exclude_none=True) for tool in tools]
    if prompt is not None:
        entry["prompt"] = digest_of(prompt)
    if clock is not None:
        entry["clock"] = clock
    if message is not None:
        entry["words"] = _words_digest(message)
    if sent is not None:
        entry |= sent.recorded()
    return {RECORD_KEY: entry}


def is_reply(message: ChatMessage, unmarked_replies: bool = False) -> bool:
    """Return whether the model under audit wrote the message.

    Only messages that Inspect marked as generated count, not prefills, few-shot examples or scripted turns, nor a generated message
    whose text was edited afterwards (where the `local/` provider recorded it).

    Args:
        message: any message.
        unmarked_replies: also count assistant messages without any mark of their source, for logs that other tools wrote.
    """
    if not isinstance(message, ChatMessageAssistant):
        return False
    if message.source != "generate" and not (unmarked_replies and message.source is None):
        return False
    return _record_of(message).get("words") in (None, _words_digest(message))


def has_record(message: ChatMessage) -> bool:
    """Return whether the `local/` provider recorded how it generated a message."""
    return isinstance(message, ChatMessageAssistant) and bool(_record_of(message))


def keeps_its_tokens(message: ChatMessage, unmarked_replies: bool = False) -> bool:
    """Return whether a reply is put into later prompts by its own tokens.

    Not so with thinking, since templates decide whether earlier thinking stays, nor with tool calls of another provider, whose text only
    the template knows.
    """
    if not isinstance(message, ChatMessageAssistant) or not is_reply(message, unmarked_replies) or reasoning_parts(message):
        return False
    if message.tool_calls or not message.text.strip():
        return bool(_record_of(message))
    return True


def offered_tools(message: ChatMessageAssistant, default: Sequence[ToolInfo]) -> list[ToolInfo]:
    """Return the tools that were offered when a reply was generated; `default` where that was not recorded.

    Raises:
        DataError: the record is damaged.
    """
    recorded = _record_of(message)
    if not recorded:
        return list(default)
    try:
        return [ToolInfo.model_validate(tool) for tool in recorded.get("tools", [])]
    except (ValidationError, TypeError) as ex:
        raise DataError(f"The log's record of a reply ('{RECORD_KEY}') has tools that cannot be read; the log is damaged.") from ex


def clock_of(message: ChatMessageAssistant) -> str | None:
    """Return the time that the template wrote into a reply's prompt, if that was recorded."""
    clock = _record_of(message).get("clock")
    return None if clock is None else str(clock)


def sent_with(message: ChatMessageAssistant) -> SentConversation:
    """Return how the conversation that a reply answers was sent to the model.

    Raises:
        DataError: the record is damaged.
    """
    return SentConversation.from_record(_record_of(message))


def reply_of(tokenizer: PreTrainedTokenizerBase, message: ChatMessageAssistant, opened: bool) -> Reply:
    """Return the tokens of a reply.

    Args:
        tokenizer: the model's tokenizer.
        message: the reply.
        opened: whether its prompt had opened the thinking block.

    Raises:
        DataError: the recorded ids are another tokenizer's, or no ids.
    """
    recorded = _record_of(message)
    if not recorded:
        return _from_text(tokenizer, message, opened)
    fingerprint = tokenizer_fingerprint(tokenizer)
    if recorded.get("tokenizer") != fingerprint:
        raise DataError(
            f"A reply was recorded with another model's tokenizer ({recorded.get('tokenizer')}, expected {fingerprint}); "
            "score the log with the model that wrote it."
        )
    ids = recorded["ids"]
    highest = len(tokenizer) + _PADDED_VOCABULARY
    if not isinstance(ids, list) or not all(type(i) is int and 0 <= i < highest for i in ids):
        raise DataError(f"The log's record of a reply ('{RECORD_KEY}') holds something else than token ids; the log is damaged.")
    clock = clock_of(message)
    return Reply(ids, _channels(tokenizer, ids, message, opened), True, recorded.get("n_prompt"), recorded.get("prompt"), clock)


def _from_text(tokenizer: PreTrainedTokenizerBase, message: ChatMessageAssistant, opened: bool) -> Reply:
    """The tokens of a reply whose ids were not recorded; only tags that are written here, not those in its text, may be control tokens."""
    stretches: list[tuple[str, Channel]] = []
    if thinking := written_thinking(message):
        stretches += [(f"{'' if opened else THINK_OPEN}\n", Channel.SCAFFOLD), (thinking, Channel.THINKING)]
        stretches += [(f"\n{THINK_CLOSE}\n\n", Channel.SCAFFOLD)]
        stretches += _answer_and_calls(message.text, message, 0, len(message.text))
    else:
        at = 0
        # Some providers log the thinking of a block that the prompt opened, with its closing tag; others leave it out.
        for end, channel in _segments(message.text, message, opened and THINK_CLOSE in message.text):
            stretches.append((message.text[at:end], channel))
            at = end
    pieces = [Piece(text, untrusted=channel is not Channel.SCAFFOLD or not thinking) for text, channel in stretches]
    encoded = encode_pieces(tokenizer, pieces)
    return Reply(encoded.ids, [stretches[piece][1] for piece in encoded.pieces], False)


def _channels(tokenizer: PreTrainedTokenizerBase, ids: list[int], message: ChatMessageAssistant, opened: bool) -> list[Channel]:
    text = decoded(tokenizer, ids, skip_special=False)
    channels: list[Channel] = []
    for end, channel in _segments(text, message, opened):
        if len(channels) < len(ids):
            upto = tokens_within(tokenizer, ids, end)
            channels.extend([channel] * (upto - len(channels)))
    return channels


def _segments(text: str, message: ChatMessageAssistant, opened: bool) -> list[tuple[int, Channel]]:
    """Ends and channels of consecutive stretches of a reply's text; together they are the whole text."""
    block = thinking_block(text, opened)
    if block is None:
        spans = _answer_and_calls(text, message, 0, len(text))
    else:
        spans = _answer_and_calls(text, message, 0, block.start)
        spans += [(text[block.start : block.inner_start], Channel.SCAFFOLD), (text[block.inner_start : block.inner_end], Channel.THINKING)]
        spans += [(text[block.inner_end : block.end], Channel.SCAFFOLD)]
        spans += _answer_and_calls(text, message, block.end, len(text))
    out, end = [], 0
    for stretch, channel in spans:
        end += len(stretch)
        out.append((end, channel))
    return out


def _answer_and_calls(text: str, message: ChatMessageAssistant, start: int, end: int) -> list[tuple[str, Channel]]:
    """Text between two positions as answers and tool calls (unfinished ones included), in the forms that Inspect's handler parses."""
    within = text[start:end]
    calls: list[re.Match[str]] = []
    if message.tool_calls or offered_tools(message, ()):
        calls = list(_TAGGED_CALL.finditer(within))
        if not calls and message.tool_calls:  # Llama's convention: a bare JSON object
            calls = list(_BARE_CALL.finditer(within))
    out, at = [], 0
    for call in calls:
        out += [(within[at : call.start()], Channel.ANSWER), (call[0], Channel.TOOL_CALL)]
        at = call.end()
    return [(stretch, channel) for stretch, channel in [*out, (within[at:], Channel.ANSWER)] if stretch]


def _record_of(message: ChatMessageAssistant) -> dict[str, Any]:
    recorded = (message.metadata or {}).get(RECORD_KEY)
    return recorded if isinstance(recorded, dict) and "ids" in recorded else {}
