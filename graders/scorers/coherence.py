"""`coherence`: does a response still read like the model's own text? How likely the unsteered model finds it, and how often it repeats.

Steering that is too strong makes a model ramble, and a rate measured on rambling says nothing. The audit marks such cells.
"""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from inspect_ai.model import Model, get_model
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer
from inspect_ai.solver import TaskState

from graders.record import CoherenceRecord
from graders.scorers.reading import in_thread, tool_infos
from nla.support.errors import TranscriptError, reading_transcript

_NGRAM = 4


@scorer(metrics=[mean()])
def coherence(model: str | None = None, unmarked_replies: bool = False) -> Scorer:
    """Mean log-probability (nats per token) of the response tokens under the unsteered model, with repetition in the metadata.

    Args:
        model: the open model that wrote the transcripts, if their model name does not say.
        unmarked_replies: take assistant messages without a recorded source for the model's own words (logs of other tools).
    """

    async def score(state: TaskState, target: Target) -> Score:
        try:
            record = await in_thread(partial(_measure, state, model, get_model(), unmarked_replies))
        except TranscriptError as ex:
            record = CoherenceRecord(reason="the transcript cannot be read", note=str(ex))
        return record.to_score()

    return score


def _measure(state: TaskState, name: str | None, active: Model, unmarked_replies: bool) -> CoherenceRecord:
    from nla.inspect.shared_read import shared_logprobs
    from nla.inspect.weights import model_to_read
    from nla.transcripts.origin import conversation
    from nla.transcripts.transcript import build_transcript

    weights = model_to_read(str(state.model), name, active, state.output.metadata).plain
    with reading_transcript():
        transcript = build_transcript(weights.tokenizer, conversation(state), tool_infos(state), unmarked_replies=unmarked_replies)
        tokens = transcript.response_tokens()
        logprobs = shared_logprobs(weights, transcript)
    if not tokens:
        return CoherenceRecord(reason="no response tokens")
    stop = state.output.stop_reason if state.output.choices else "unknown"
    mean_logprob = sum(logprobs) / len(logprobs)
    repeats = repetition([token.token_id for token in tokens])
    return CoherenceRecord(
        value=mean_logprob,
        mean_logprob=mean_logprob,
        n_tokens=len(tokens),
        truncated=stop in ("max_tokens", "model_length"),
        distinct_1=repeats.distinct_1,
        repeated_4=repeats.repeated_4,
    )


class Repetition(NamedTuple):
    """How much a token sequence repeats itself."""

    distinct_1: float
    """Share of different tokens."""
    repeated_4: float
    """Share of 4-grams that had occurred before; 0 if there are no 4-grams."""


def repetition(ids: Sequence[int]) -> Repetition:
    """Measure how much a non-empty token sequence repeats itself."""
    grams = Counter(tuple(ids[i : i + _NGRAM]) for i in range(len(ids) - _NGRAM + 1))
    n = sum(grams.values())
    return Repetition(len(set(ids)) / len(ids), 1 - len(grams) / n if n else 0.0)
