"""One read of each transcript for all measures: response tokens are chosen once, and one forward pass gives the vectors at all of them.

Scorers run one after the other on a transcript. The first one that needs vectors reads them at every token that any measure looks at, and
the others find them in memory. Where the scorer `coherence` follows, the same pass goes through all blocks and gives it the
log-probabilities. A few dozen transcripts are kept, at most 300 vectors and the sampled ones of each; texts and logits are not.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Generic, TypeVar

from inspect_ai.model import ChatMessage
from inspect_ai.tool import ToolInfo
from jaxtyping import Float
from torch import Tensor

from nla.activations.capture import capture
from nla.activations.likelihood import logprobs_and_vectors, response_logprobs
from nla.models.loaded import LoadedModel
from nla.support.errors import reading_transcript
from nla.transcripts.reply import digest_of
from nla.transcripts.tokens import TokenRef, Transcript, sample_tokens
from nla.transcripts.transcript import build_transcript

RESPONSE_TOKENS = 300
"""Response tokens at which every transcript is read, beside the sampled ones."""
_KEPT_TRANSCRIPTS = 64
"""More than are scored at once (`graders.scorers.reading`), so that a transcript stays until its last scorer."""
_T = TypeVar("_T")


class Recent(Generic[_T]):
    """The results used last, by key. Threads may share it."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[Hashable, _T] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> _T | None:
        """Return what was kept under a key; None if it was not, or had to make room."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def keep(self, key: Hashable, result: _T) -> None:
        """Keep a result, and drop the one that was not used for longest if there are too many."""
        with self._lock:
            self._kept[key] = result
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)

    def clear(self) -> None:
        """Drop everything."""
        with self._lock:
            self._kept.clear()


VECTORS: Recent[Tensor] = Recent(_KEPT_TRANSCRIPTS)
LOGPROBS: Recent[list[float]] = Recent(_KEPT_TRANSCRIPTS)


@dataclass(frozen=True)
class TranscriptVectors:
    """The response tokens that were chosen from one transcript, and the residual stream at them."""

    transcript: Transcript
    sampled: tuple[TokenRef, ...]
    """Tokens to be explained, in reading order."""
    read: tuple[TokenRef, ...]
    """Up to `RESPONSE_TOKENS` response tokens, in reading order."""
    tokens: tuple[TokenRef, ...]
    """All chosen tokens, each once, in reading order."""
    vectors: Float[Tensor, "n d_model"]
    """Output of the decoder block at `tokens` (float32, on the CPU)."""

    @cached_property
    def _row_of(self) -> dict[TokenRef, int]:
        return {token: row for row, token in enumerate(self.tokens)}

    def at(self, tokens: Sequence[TokenRef]) -> Float[Tensor, "k d_model"]:
        """Return the vectors at some of `tokens`, in their order."""
        return self.vectors[[self._row_of[token] for token in tokens]]


def read_vectors(
    model: LoadedModel,
    messages: Sequence[ChatMessage],
    layer: int,
    *,
    n_sampled: int,
    key: tuple[object, ...],
    tools: Sequence[ToolInfo] = (),
    unmarked_replies: bool = False,
    shared: bool = False,
    logprobs: bool = False,
) -> TranscriptVectors:
    """Choose response tokens of a conversation and read the residual stream at them.

    Args:
        model: the model; a steered view is read under its steering.
        messages: the conversation.
        layer: K, the block whose output is read.
        n_sampled: number of tokens to be explained; all of them if there are fewer.
        key: seed, sample id and epoch; the choice of tokens depends on it alone.
        tools: tools that were offered, if the replies do not record them.
        unmarked_replies: take assistant messages without a recorded source for the model's own words.
        shared: take the vectors from memory if a scorer has read this transcript, and keep them for the next one. Only where the weights
            stay as they are while the process runs.
        logprobs: with `shared`, also keep the log-probabilities of the response for `shared_logprobs`, unless the model is steered.

    Raises:
        TranscriptError: the conversation cannot be rendered as the model saw it, is longer than the context window, or needs more memory
            than there is.
    """
    if model.reader is not None:
        model.reader.prepare(model, layer)
    with reading_transcript():
        transcript = build_transcript(model.tokenizer, messages, tools, unmarked_replies=unmarked_replies)
        sampled = sample_tokens(transcript, n_sampled, *key)
        # A reply that ends at the end of the context window has a last token that no pass can hold; it is read only if it is sampled.
        read = sample_tokens(transcript, RESPONSE_TOKENS, "read", *key, before=model.max_positions)
        tokens = tuple(sorted({*sampled, *read}, key=lambda token: (token.pass_index, token.position)))
        work = partial(_vectors, model, transcript, tokens, layer, logprobs)
        if shared:
            work = partial(_remembered, VECTORS, (*_identity(model, transcript), layer, tokens), work)
        # Another engine is asked outside of `run`, which does one piece of work at a time, so that it reads many transcripts in one batch.
        vectors = model.run(work) if model.reader is None else work()
    return TranscriptVectors(transcript, tuple(sampled), tuple(read), tokens, vectors)


def shared_logprobs(model: LoadedModel, transcript: Transcript) -> list[float]:
    """Return the `response_logprobs` of all response tokens, from memory if a pass of `read_vectors` has given them.

    Raises:
        ConfigError: a pass is longer than the context window.
    """
    work = partial(response_logprobs, model, transcript, transcript.response_tokens())
    return model.run(partial(_remembered, LOGPROBS, _identity(model, transcript), work))


def _remembered(memory: Recent[_T], key: Hashable, work: Callable[[], _T]) -> _T:
    """Return what is kept under a key, or else do the work and keep its result.

    It is called inside `LoadedModel.run`, which does one such piece at a time: no two scorers do the same work at once. (Another engine
    may do it twice.)
    """
    kept = memory.get(key)
    if kept is None:
        kept = work()
        memory.keep(key, kept)
    return kept


def _identity(model: LoadedModel, transcript: Transcript) -> tuple[Hashable, ...]:
    """Return what the vectors of a transcript depend on, except for the layer: weights, steering, token ids and what they belong to."""
    steering = None if model.steering is None else model.steering.identity
    return model, steering, tuple(digest_of([*run.ids, *run.channels]) for run in transcript.passes)


def _vectors(
    model: LoadedModel, transcript: Transcript, tokens: Sequence[TokenRef], layer: int, logprobs: bool
) -> Float[Tensor, "n d_model"]:
    """Run the passes of a transcript and return the vectors at some response tokens; keep the log-probabilities if they are wanted."""
    if model.reader is not None:
        vectors: Tensor = model.reader.vectors(model, transcript, tokens, layer)
        return vectors
    response = transcript.response_tokens()
    within = [token for token in response if token.position < model.max_positions]
    if not logprobs or model.steering is not None or len(within) < len(response):
        return capture(model, transcript, tokens, layer, through=within)
    likelihoods, vectors = logprobs_and_vectors(model, transcript, response, layer)
    LOGPROBS.keep(_identity(model, transcript), likelihoods)
    row_of = {token: row for row, token in enumerate(response)}
    return vectors[[row_of[token] for token in tokens]]
