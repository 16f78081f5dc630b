"""Reading one transcript: response tokens are chosen, their residual-stream vectors are read, and each is verbalized.

This is the measurement that the scorer `nla_awareness` grades, and what `nla.read_transcript` offers to Python code.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from inspect_ai.model import ChatMessage, ChatMessageAssistant, ChatMessageSystem, ChatMessageTool, ChatMessageUser
from inspect_ai.tool import ToolInfo
from jaxtyping import Float
from pydantic import ValidationError
from torch import Tensor

from nla.inspect.shared_read import read_vectors
from nla.instrument import Instrument
from nla.models.loaded import LoadedModel
from nla.support.errors import DataError, TranscriptError, first_line
from nla.transcripts.starts import text_starts
from nla.transcripts.tokens import TokenRef, Transcript
from nla.verbalizers import verbalizer_of
from nla.verbalizers.base import Explanation

if TYPE_CHECKING:
    import pandas as pd

_MessageType = type[ChatMessageSystem] | type[ChatMessageUser] | type[ChatMessageAssistant] | type[ChatMessageTool]
_MESSAGE_TYPES: dict[str, _MessageType] = {
    "system": ChatMessageSystem,
    "user": ChatMessageUser,
    "assistant": ChatMessageAssistant,
    "tool": ChatMessageTool,
}


@dataclass(frozen=True)
class Reading:
    """What was read at the sampled response tokens of one transcript; all lists are in reading order."""

    transcript: Transcript
    tokens: tuple[TokenRef, ...]
    token_texts: tuple[str, ...]
    """The sampled tokens as text."""
    text_starts: tuple[int | None, ...]
    """Where each stands in the text of its message (`nla.transcripts.starts.text_starts`)."""
    vectors: Float[Tensor, "k d_model"]
    """Output of decoder block `layer` at the tokens (float32, on the CPU), as the verbalizer got it."""
    explanations: tuple[Explanation, ...]
    layer: int
    """K, the decoder block (0-based) that was read."""
    verbalizer: str
    verbalizer_reason: str
    """Why this verbalizer was taken."""
    pair: str | None
    """The trained pair that was used; None for verbalizers without one."""

    def to_frame(self) -> "pd.DataFrame":
        """One row per token: token, message, position, channel, explanation, failure and mse_nrm."""
        import pandas as pd

        rows = [
            {
                "token": text,
                "message": token.message,
                "position": token.position,
                "channel": token.channel.name.lower(),
                "explanation": explanation.text,
                "failure": explanation.failure,
                "mse_nrm": explanation.mse_nrm,
            }
            for token, text, explanation in zip(self.tokens, self.token_texts, self.explanations, strict=True)
        ]
        columns = ["token", "message", "position", "channel", "explanation", "failure", "mse_nrm"]
        return pd.DataFrame(rows, columns=columns)


def read_transcript(
    model: LoadedModel,
    messages: Sequence[ChatMessage | Mapping[str, Any]],
    instrument: Instrument = Instrument(),
    *,
    tools: Sequence[ToolInfo] = (),
    key: tuple[object, ...] = (),
    unmarked_replies: bool = False,
    shared: bool = False,
    logprobs: bool = False,
) -> Reading:
    """Read the residual stream of a model at sampled tokens of its own replies, and verbalize what is read.

    Args:
        model: the model that wrote the replies; a steered view is read under its steering, while the verbalizer is never steered.
        messages: the conversation, as Inspect messages or as dictionaries with `role` and `content`. Assistant messages given as
            dictionaries are taken for the model's own replies.
        instrument: what to read and with what.
        tools: tools that were offered, if the replies do not record them.
        key: identifies the transcript (for example sample id and epoch). The choice of tokens and all draws depend on it and on the
            instrument's seed alone.
        unmarked_replies: take assistant messages without a recorded source for the model's own words, for logs that other tools wrote.
        shared: share the vectors with the other scorers of this transcript, see `nla.inspect.shared_read.read_vectors`.
        logprobs: with `shared`, let the same forward pass give the log-probabilities that the scorer `coherence` needs.

    Raises:
        ConfigError: an unknown verbalizer, or no such layer.
        ContractError: a pair that does not fit the model.
        TranscriptError: a conversation that cannot be rendered as the model saw it, is longer than the context window, or needs more
            memory than there is.
    """
    verbalizer, reason = verbalizer_of(instrument, model.base)
    key = (instrument.seed, *key)
    said = _as_messages(messages)
    read = read_vectors(
        model, said, verbalizer.layer,
        n_sampled=instrument.tokens, key=key, tools=tools, unmarked_replies=unmarked_replies, shared=shared, logprobs=logprobs,
    )  # fmt: skip
    tokens, vectors = read.sampled, read.at(read.sampled)
    if instrument.project_out and model.steering is not None:
        vectors = model.run(partial(model.steering.project_out, vectors, verbalizer.layer))
    keys = [(*key, token.pass_index, token.position) for token in tokens]
    return Reading(
        transcript=read.transcript,
        tokens=tokens,
        token_texts=tuple(str(model.tokenizer.decode([token.token_id])) for token in tokens),
        text_starts=tuple(text_starts(model.tokenizer, read.transcript, said, tokens)),
        vectors=vectors,
        explanations=tuple(verbalizer.verbalize(vectors, keys)) if tokens else (),
        layer=verbalizer.layer,
        verbalizer=verbalizer.name,
        verbalizer_reason=reason,
        pair=instrument.pair or verbalizer.pair,
    )


def _as_messages(messages: Sequence[ChatMessage | Mapping[str, Any]]) -> list[ChatMessage]:
    """Inspect messages from messages and dictionaries.

    Raises:
        TranscriptError: a dictionary is not a message.
    """
    try:
        return [_as_message(message) for message in messages]
    except DataError as ex:
        raise TranscriptError(str(ex)) from ex


def _as_message(message: ChatMessage | Mapping[str, Any]) -> ChatMessage:
    if not isinstance(message, Mapping):
        return message
    kind = _MESSAGE_TYPES.get(str(message.get("role")))
    if kind is None:
        raise DataError(f"Invalid message role {message.get('role')!r}: expected one of {', '.join(_MESSAGE_TYPES)}.")
    fields = dict(message) | ({"source": "generate"} if kind is ChatMessageAssistant else {})
    try:
        return kind.model_validate(fields)
    except ValidationError as ex:
        raise DataError(f"Invalid {message.get('role')} message: {first_line(ex)}; expected the fields role and content.") from None
