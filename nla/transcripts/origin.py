"""Which assistant messages of a sample the audited model wrote: the source that Inspect marks, checked against the recorded model calls.

A solver can edit a reply, put a text of its own in place of it, or insert the reply of another model, all with the mark `generate`. The
calls that Inspect records in the sample's events keep what the model wrote.
"""

import re
from collections.abc import Iterable, Sequence

from inspect_ai.event import Event, ModelEvent, SpanBeginEvent
from inspect_ai.log import EvalSample, transcript
from inspect_ai.model import ChatMessage, ChatMessageAssistant
from inspect_ai.solver import TaskState

from nla.transcripts.chat import reasoning_text, with_encrypted_parts
from nla.transcripts.reply import has_record

_ATTACHMENT = "attachment://"
"""How Inspect begins a long text of an event that is stored elsewhere in the log."""
_NOT_WORDS = re.compile(r"\s|</?think[^>]*>")


def conversation(state: TaskState) -> list[ChatMessage]:
    """Return the messages of the sample that is being scored, as scorers read them.

    Each assistant message that the sample's model did not write is marked as input, and encrypted reasoning is a part of its own.
    """
    messages = marked_by_calls(state.messages, calls_of(str(state.model), transcript().events))
    return [message if has_record(message) else with_encrypted_parts(message) for message in messages]


def conversation_of(model: str, sample: EvalSample) -> list[ChatMessage]:
    """Return the messages of a sample of a log; each assistant message that the model did not write is marked as input.

    Args:
        model: the model's name with its provider, as the log gives it.
        sample: the sample.
    """
    return marked_by_calls(sample.messages, calls_of(model, sample.events))


def calls_of(model: str, events: Iterable[Event]) -> list[ChatMessage]:
    """Return what a model wrote in the calls among a sample's events, without calls of scorers: those grade or ask, after the sample.

    Args:
        model: the model's name with its provider, e.g. `local/smollm2`.
        events: the events of the sample.
    """
    scoring: set[str] = set()
    written: list[ChatMessage] = []
    for event in events:
        if isinstance(event, SpanBeginEvent) and (event.name == "scorers" or event.parent_id in scoring):
            scoring.add(event.id)
        elif isinstance(event, ModelEvent) and event.model == model and event.span_id not in scoring:
            written += [choice.message for choice in event.output.choices]
    return written


def marked_by_calls(messages: Sequence[ChatMessage], written: Sequence[ChatMessage]) -> list[ChatMessage]:
    """Mark as input each generated message that differs from what the model wrote.

    Args:
        messages: a conversation.
        written: the messages that the model wrote (`calls_of`). If there are none, the log does not record its calls, and the source that
            Inspect marks decides alone.
    """
    if not written or any(_ATTACHMENT in message.text for message in written):
        return list(messages)
    by_id = {message.id: message for message in written if message.id is not None}
    everything = [_words(reasoning_text(message) + message.text) for message in written]
    return [_as_input(m) if _claims(m) and not _is_written(m, by_id, everything) else m for m in messages]


def marked_by_name(messages: Sequence[ChatMessage], model: str) -> list[ChatMessage]:
    """Mark as input each generated message that names another model than `model` as its author."""
    return [_as_input(m) if _claims(m) and getattr(m, "model", None) not in (None, model) else m for m in messages]


def _claims(message: ChatMessage) -> bool:
    return isinstance(message, ChatMessageAssistant) and message.source == "generate"


def _is_written(message: ChatMessage, by_id: dict[str, ChatMessage], everything: Sequence[str]) -> bool:
    """Whether a message is one that the model wrote. Agents may rebuild messages under new ids and without their thinking."""
    text = _words(message.text)
    if message.id in by_id:
        return text == _words(by_id[message.id].text)
    return any(text in words for words in everything)


def _words(text: str) -> str:
    return _NOT_WORDS.sub("", text)


def _as_input(message: ChatMessage) -> ChatMessage:
    return message.model_copy(update={"source": "input"})
