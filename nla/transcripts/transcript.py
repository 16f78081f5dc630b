"""A transcript built from Inspect's messages: the token ids that the model saw and wrote."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from inspect_ai.model import ChatMessage, ChatMessageAssistant, ChatMessageUser
from inspect_ai.tool import ToolInfo
from transformers import PreTrainedTokenizerBase

from nla.models.chat_template import THINK_CLOSE, compose, encode
from nla.models.control_tokens import encode_pieces
from nla.models.marks import Piece
from nla.support.errors import DataError
from nla.transcripts.chat import has_encrypted_reasoning, reasoning_parts, refuse_unreadable, template_message, with_encrypted_parts
from nla.transcripts.reply import Reply, clock_of, digest_of, has_record, is_reply, keeps_its_tokens, offered_tools, reply_of, sent_with
from nla.transcripts.tokens import Channel, Pass, Transcript


class Context(NamedTuple):
    """The prompt of a reply."""

    tokens: Pass
    opened: bool
    """Whether it ends inside a thinking block that the template opened."""
    dated: bool
    """Whether the template wrote the current time into it."""
    unstable: bool
    """Whether it holds text that differs between runs for another reason."""


def build_transcript(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[ChatMessage],
    tools: Sequence[ToolInfo] = (),
    *,
    unmarked_replies: bool = False,
    sample: object = None,
) -> Transcript:
    """Tokenise a conversation as the model saw it.

    A reply's token ids are those that the `local/` provider recorded; for logs of other providers its text is tokenised. Assistant messages
    that the model did not write (few-shot examples, prefills, scripted turns, edited replies) are context. A template that writes the
    current time is given the time that was recorded with the reply, and where none was, always the same time.

    Args:
        tokenizer: the model's tokenizer, with its chat template.
        messages: the whole conversation.
        tools: tools offered, where a reply has no record of them.
        unmarked_replies: take assistant messages without a mark of their source for the model's own, for logs that other tools wrote.
        sample: id of the sample, for error messages.

    Raises:
        DataError: a message holds images or the like, or a record of a reply is another model's or damaged.
        ModelError: the template refuses the conversation, or drops, repeats or changes a text.
    """
    refuse_unreadable(messages, sample)
    messages = [message if has_record(message) else with_encrypted_parts(message) for message in messages]
    passes: list[Pass] = []
    exact = True
    replied_at = -1
    for index, message in enumerate(messages):
        if not isinstance(message, ChatMessageAssistant) or not is_reply(message, unmarked_replies):
            continue
        clock = _time_of(message)
        context = _context_before(tokenizer, messages[:index], message, tools, clock, unmarked_replies)
        reply = reply_of(tokenizer, message, context.opened)
        exact &= _is_exact(reply, context, clock)
        passed = passes[-1].ids if passes else []
        if passes and passed == context.tokens.ids[: len(passed)] and not reasoning_parts(messages[replied_at]):
            done = len(passed)
            passes[-1].extend(context.tokens.ids[done:], context.tokens.channels[done:], context.tokens.messages[done:])
        else:
            passes.append(context.tokens)
        passes[-1].extend(reply.ids, reply.channels, [index] * len(reply.ids))
        replied_at = index
    roles = tuple(message.role for message in messages)
    encrypted = any(has_encrypted_reasoning(message) for message in messages if is_reply(message, unmarked_replies))
    return Transcript(tuple(passes), roles, frozenset(tokenizer.all_special_ids), exact, encrypted)


def _context_before(
    tokenizer: PreTrainedTokenizerBase,
    before: Sequence[ChatMessage],
    reply: ChatMessageAssistant,
    tools: Sequence[ToolInfo],
    clock: datetime | None,
    unmarked_replies: bool,
) -> Context:
    """Return the prompt of a reply, from the conversation before it as it was sent to the model."""
    sent = sent_with(reply).messages(before)
    context = context_of(tokenizer, sent, offered_tools(reply, tools), clock=clock, unmarked_replies=unmarked_replies)
    added = len(sent) - len(before)
    context.tokens.messages[:] = [max(index - added, 0) for index in context.tokens.messages]
    return context


def _time_of(message: ChatMessageAssistant) -> datetime | None:
    clock = clock_of(message)
    try:
        return None if clock is None else datetime.fromisoformat(clock)
    except ValueError as ex:
        raise DataError("The log's record of a reply has a time that cannot be read; expected ISO format. The log is damaged.") from ex


def _is_exact(reply: Reply, context: Context, clock: datetime | None) -> bool:
    """Whether a reply's tokens are the generated ones, and its prompt is the one that it was generated from, as far as is recorded."""
    if not reply.recorded or context.unstable or (context.dated and clock is None):
        return False
    ids = context.tokens.ids
    return reply.n_prompt in (None, len(ids)) and reply.prompt_digest in (None, digest_of(ids))


def context_of(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[ChatMessage],
    tools: Sequence[ToolInfo],
    *,
    clock: datetime | None = None,
    unmarked_replies: bool = False,
) -> Context:
    """Return the prompt for the next reply.

    Earlier replies of the model itself are in it by their own token ids (so generation can reuse keys and values), except those with
    thinking, which the template writes, since it decides whether earlier thinking stays. Nothing in a message's text, a tool's result or
    description, or a call's arguments can become a control token.

    Args:
        tokenizer: the model's tokenizer, with its chat template.
        messages: the conversation so far.
        tools: tools offered for the next reply.
        clock: the time for templates that write it; None takes `REFERENCE_TIME` of `nla.models.chat_template`.
        unmarked_replies: as in `build_transcript`.

    Raises:
        DataError: a text cannot be encoded, or a record of a reply is another model's or damaged.
        ModelError: the template refuses the conversation, or drops, repeats or changes a text.
    """
    kept = {index for index, message in enumerate(messages) if keeps_its_tokens(message, unmarked_replies)}
    entries = [{"role": m.role, "content": ""} if i in kept else template_message(m) for i, m in enumerate(messages)]
    described = [tool.model_dump(exclude_none=True) for tool in tools]
    prompt = compose(tokenizer, entries, described, kept=kept, clock=clock)
    context = Pass()
    stretch: list[Piece] = []
    for piece in prompt.pieces:
        if not piece.kept:
            stretch.append(piece)
            continue
        _extend(context, tokenizer, stretch)
        stretch = []
        message = messages[piece.owner or 0]
        assert isinstance(message, ChatMessageAssistant)
        ids = reply_of(tokenizer, message, opened=False).ids
        context.extend(ids, [Channel.CONTEXT] * len(ids), [piece.owner or 0] * len(ids))
    _extend(context, tokenizer, stretch)
    return Context(context, prompt.opens_thinking, prompt.dated, prompt.unstable)


def question_prompt(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[ChatMessage],
    question: str,
    *,
    tools: Sequence[ToolInfo] = (),
    unmarked_replies: bool = False,
) -> list[int]:
    """Return the token ids of a conversation that goes on with a question of the user, up to where the answer begins.

    A template that writes the current time is given the time of the last reply. A thinking block that the template opens is closed.

    Args:
        tokenizer: the model's tokenizer, with its chat template.
        messages: the whole conversation.
        question: the user's next turn.
        tools: tools offered, where the last reply has no record of them.
        unmarked_replies: as in `build_transcript`.

    Raises:
        DataError: a message holds images or the like, or a record of a reply is another model's or damaged.
        ModelError: the template refuses the conversation, or drops, repeats or changes a text.
    """
    refuse_unreadable(messages)
    replies = [m for m in messages if isinstance(m, ChatMessageAssistant) and is_reply(m, unmarked_replies)]
    offered = offered_tools(replies[-1], tools) if replies else list(tools)
    clock = _time_of(replies[-1]) if replies else None
    asked = [*messages, ChatMessageUser(content=question)]
    context = context_of(tokenizer, asked, offered, clock=clock, unmarked_replies=unmarked_replies)
    return context.tokens.ids + (encode(tokenizer, f"\n{THINK_CLOSE}\n\n") if context.opened else [])


def _extend(context: Pass, tokenizer: PreTrainedTokenizerBase, pieces: Sequence[Piece]) -> None:
    """Append written text: tokens of a message's text are `CONTEXT` of that message, all others `SCAFFOLD` of the message before."""
    encoded = encode_pieces(tokenizer, pieces, at_start=not context.ids)
    first = next((piece.owner for piece in pieces if piece.owner is not None), 0)
    message = context.messages[-1] if context.messages else first
    owners = []
    for index in encoded.pieces:
        owner = pieces[index].owner
        message = message if owner is None else owner
        owners.append(message)
    channels = [Channel.SCAFFOLD if pieces[index].owner is None else Channel.CONTEXT for index in encoded.pieces]
    context.extend(encoded.ids, channels, owners)
