"""A transcript as token ids with roles, and the seeded choice of response tokens at which the residual stream is read.

A transcript is one or more *passes*: token sequences in which the model's replies stand in the context it generated them
in. Usually one pass holds the whole conversation; where the context of a turn is not a continuation of the turn before (a
template that drops earlier thinking, say) a new pass begins.
"""

import itertools
from collections.abc import Sequence
from typing import Any

from inspect_ai.model import ChatMessage, ChatMessageAssistant
from inspect_ai.tool import ToolInfo
from transformers import PreTrainedTokenizerBase

from nla.models.chat_template import encode, encode_content, render
from nla.support.errors import DataError
from nla.transcripts.chat import reasoning_text, template_message, thinking_opened
from nla.transcripts.reply import Reply, is_reply, keeps_its_tokens, offered_tools, reply_of
from nla.transcripts.tokens import Channel, Pass, Transcript


def build_transcript(tokenizer: PreTrainedTokenizerBase, messages: Sequence[ChatMessage], tools: Sequence[ToolInfo] = ()) -> Transcript:
    """Tokenise a conversation as the model saw it.

    A reply's token ids are those the `local/` provider recorded; for logs of other providers its text is tokenised.
    Assistant messages given as input (few-shot examples, imported history) are context.

    Args:
        tokenizer: the model's tokenizer, with its chat template.
        messages: the whole conversation.
        tools: tools offered, where a reply has no record of them.

    Raises:
        DataError: the template cannot place an earlier reply.
        ModelError: the template refuses the conversation.
    """
    passes: list[Pass] = []
    exact = True
    replied_at = -1
    for index, message in enumerate(messages):
        if not is_reply(message):
            continue
        assert isinstance(message, ChatMessageAssistant)
        offered = offered_tools(message, tools)
        context, opened = context_of(tokenizer, messages[:index], offered)
        reply = reply_of(tokenizer, message, opened)
        exact &= reply.recorded and reply.n_prompt in (None, len(context.ids))
        if passes and passes[-1].ids == context.ids[: len(passes[-1].ids)] and not reasoning_text(messages[replied_at]):
            done = len(passes[-1].ids)
            passes[-1].extend(context.ids[done:], context.channels[done:], context.messages[done:])
        else:
            passes.append(context)
        passes[-1].extend(reply.ids, reply.channels, [index] * len(reply.ids))
        replied_at = index
    roles = tuple(message.role for message in messages)
    return Transcript(tuple(passes), roles, frozenset(tokenizer.all_special_ids), exact)


def context_of(tokenizer: PreTrainedTokenizerBase, messages: Sequence[ChatMessage], tools: Sequence[ToolInfo]) -> tuple[Pass, bool]:
    """The prompt for the next reply: its tokens, and whether it opens a thinking block.

    Earlier replies of the model itself stand in it with their own token ids (so generation can reuse keys and values), except
    those with thinking, which the template renders, since it decides whether old thinking stays. Control tokens written out in
    a message's text are encoded as ordinary text, so no user can forge a turn.
    """
    spliced = {i for i, m in enumerate(messages) if keeps_its_tokens(m)}
    mark = _unused_mark(messages)
    rendered = [template_message(m, mark.format(i) if i in spliced else None) for i, m in enumerate(messages)]
    rest = render(tokenizer, rendered, [tool.model_dump(exclude_none=True) for tool in tools], add_generation_prompt=True)
    opened = thinking_opened(rest)
    context = Pass()
    start = 0
    for index in sorted(spliced):
        head, found, rest = rest.partition(mark.format(index))
        if not found:
            raise DataError(f"the chat template dropped the reply in message {index}, so what the model saw cannot be rebuilt.")
        _extend_with_text(context, tokenizer, head, messages, range(start, index))
        message = messages[index]
        assert isinstance(message, ChatMessageAssistant)
        reply: Reply = reply_of(tokenizer, message, opened=False)
        context.extend(reply.ids, [Channel.CONTEXT] * len(reply.ids), [index] * len(reply.ids))
        start = index + 1
    _extend_with_text(context, tokenizer, rest, messages, range(start, len(messages)))
    return context, opened


def _extend_with_text(context: Pass, tokenizer: PreTrainedTokenizerBase, text: str, messages: Sequence[ChatMessage], within: range) -> None:
    """Append rendered text: tokens inside a message's content are `CONTEXT` of that message, the others `SCAFFOLD`."""
    control = [*tokenizer.all_special_tokens]
    cursor, last = 0, within.start
    plain_from, owned = 0, list[tuple[int, int, int]]()
    for index in within:
        content = messages[index].text.strip()
        found = text.find(content, cursor) if content else -1
        if found < 0:
            continue
        cursor, last = found + len(content), index
        if any(token in content for token in control):
            _extend_jointly(context, tokenizer, text[plain_from:found], plain_from, owned, within.start)
            ids = encode_content(tokenizer, content)
            context.extend(ids, [Channel.CONTEXT] * len(ids), [index] * len(ids))
            plain_from, owned = cursor, []
        else:
            owned.append((found, cursor, index))
    _extend_jointly(context, tokenizer, text[plain_from:], plain_from, owned, last)


def _extend_jointly(
    context: Pass, tokenizer: PreTrainedTokenizerBase, text: str, offset: int, owned: list[tuple[int, int, int]], fallback: int
) -> None:
    """Append a stretch of rendered text that starts at `offset`, tokenised as one; `owned` are (start, end, message) of contents."""
    if not text:
        return
    if tokenizer.is_fast:
        encoded: Any = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids, starts = list(encoded["input_ids"]), [start + offset for start, _ in encoded["offset_mapping"]]
    else:
        ids = encode(tokenizer, text)
        starts = [-1] * len(ids)
    spans = iter(owned)
    span = next(spans, None)
    message = owned[0][2] if owned else fallback
    for token, start in zip(ids, starts, strict=True):
        while span is not None and start >= span[1]:
            span = next(spans, None)
        inside = span is not None and start >= span[0]
        if inside and span is not None:
            message = span[2]
        context.extend([token], [Channel.CONTEXT if inside else Channel.SCAFFOLD], [message])


def _unused_mark(messages: Sequence[ChatMessage]) -> str:
    """A format for marks that no message's text contains."""
    everything = "".join(message.text for message in messages)
    nonce = next(n for n in itertools.count() if f"\u241f{n}:" not in everything)
    return f"\u241f{nonce}:{{}}\u241f"
