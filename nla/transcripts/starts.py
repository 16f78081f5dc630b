"""Where a response token stands in the text of its message, so that a page can mark it in place."""

from collections.abc import Sequence

from inspect_ai.model import ChatMessage
from transformers import PreTrainedTokenizerBase

from nla.transcripts.borders import decoded
from nla.transcripts.chat import written_thinking
from nla.transcripts.tokens import Channel, TokenRef, Transcript

_BROKEN = "\N{REPLACEMENT CHARACTER}"
"""What a tokenizer writes for a token that holds only a part of a character."""


def text_starts(
    tokenizer: PreTrainedTokenizerBase, transcript: Transcript, messages: Sequence[ChatMessage], tokens: Sequence[TokenRef]
) -> list[int | None]:
    """Return the character position at which each token starts in the text that a reader sees.

    For a token of an answer that is the message's text, and for a token of thinking the thinking without its tags. Both lack the white
    space that surrounds them in the raw reply.

    Args:
        tokenizer: the model's tokenizer.
        transcript: the transcript that was built from the messages.
        messages: the conversation.
        tokens: response tokens of the transcript.

    Returns:
        One position per token; None where the token is not found in the text, for example because a solver had moved the text.
    """
    replies: dict[tuple[int, int], tuple[int, str]] = {}
    starts: list[int | None] = []
    for token in tokens:
        run = transcript.passes[token.pass_index]
        key = (token.pass_index, token.message)
        if key not in replies:
            first = run.messages.index(token.message)
            length = next((i for i, message in enumerate(run.messages[first:]) if message != token.message), len(run.messages) - first)
            replies[key] = (first, decoded(tokenizer, run.ids[first : first + length], skip_special=False))
        first, raw = replies[key]
        before = decoded(tokenizer, run.ids[first : token.position], skip_special=False).rstrip(_BROKEN)
        piece = str(tokenizer.decode([token.token_id]))
        starts.append(_start_in(_shown(messages[token.message], token.channel), raw, len(before), piece))
    return starts


def _shown(message: ChatMessage, channel: Channel) -> str:
    return written_thinking(message) if channel is Channel.THINKING else message.text


def _start_in(shown: str, raw: str, position: int, piece: str) -> int | None:
    """Return a position of the raw reply as a position of the text that is shown; None where the token's own text does not stand there."""
    ending = raw.rstrip()
    offset = len(ending) - len(shown) if ending.endswith(shown) else raw.find(shown)
    if offset < 0 or not shown:
        return None
    start, text = position - offset, piece
    if start < 0:  # a token that begins with white space around the text
        start, text = 0, piece[-start:]
    if not text or start >= len(shown):
        return None
    whole = text.strip(_BROKEN)
    ends_the_text = bool(whole.rstrip()) and shown.startswith(whole.rstrip(), start)
    return start if ends_the_text or shown.startswith(whole, start) else None
