"""A transcript as token ids with roles, and the seeded choice of response tokens at which the residual stream is read.

This module does not import Inspect: a transcript can be built from token ids alone.

A transcript is one or more *passes*: token sequences in which each of the model's replies follows the context that it was generated in.
Usually one pass holds the whole conversation. Where the context of a turn does not continue the turn before, for example because the
template drops earlier thinking, a new pass begins.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from nla.support.seeds import seeded_generator


class Channel(IntEnum):
    """What a token belongs to. Only `THINKING` and `ANSWER` are response tokens."""

    SCAFFOLD = 0
    CONTEXT = 1
    THINKING = 2
    ANSWER = 3
    TOOL_CALL = 4


@dataclass
class Pass:
    """A token sequence `[pos]` the model runs once, with the channel and message index of each token."""

    ids: list[int] = field(default_factory=list)
    channels: list[Channel] = field(default_factory=list)
    messages: list[int] = field(default_factory=list)

    def extend(self, ids: Sequence[int], channels: Sequence[Channel], messages: Sequence[int]) -> None:
        """Append tokens."""
        self.ids.extend(ids)
        self.channels.extend(channels)
        self.messages.extend(messages)


@dataclass(frozen=True)
class TokenRef:
    """One token of a transcript: `passes[pass_index].ids[position]`, in message `message`."""

    pass_index: int
    position: int
    message: int
    token_id: int
    channel: Channel


@dataclass(frozen=True)
class Transcript:
    """Token ids of a conversation with the model's own replies marked."""

    passes: tuple[Pass, ...]
    roles: tuple[str, ...]
    """Role of each message, by message index."""
    special_ids: frozenset[int]
    exact: bool
    """Whether every reply's token ids, and the tokens before it, are the ones recorded at generation."""
    has_encrypted_reasoning: bool = False
    """Whether a reply holds reasoning that only its provider can read; such reasoning is not among the tokens."""

    def response_tokens(self) -> list[TokenRef]:
        """Return all tokens that may be sampled: thinking and answers of generated turns; no scaffold, tool calls or special tokens."""
        return [
            TokenRef(index, position, message, token, channel)
            for index, run in enumerate(self.passes)
            for position, (token, channel, message) in enumerate(zip(run.ids, run.channels, run.messages, strict=True))
            if channel in (Channel.THINKING, Channel.ANSWER) and token not in self.special_ids
        ]


def sample_tokens(transcript: Transcript, k: int, *key: object, before: int | None = None) -> list[TokenRef]:
    """Return min(k, n) of the n response tokens in reading order, drawn without replacement.

    Args:
        transcript: the transcript.
        k: number of tokens wanted.
        key: what the draw depends on, e.g. seed, sample id and epoch.
        before: leave out tokens at this position of a pass and later.
    """
    tokens = [token for token in transcript.response_tokens() if before is None or token.position < before]
    if not tokens:
        return []
    chosen = seeded_generator("tokens", *key).choice(len(tokens), size=min(k, len(tokens)), replace=False)
    return [tokens[i] for i in np.sort(chosen)]
