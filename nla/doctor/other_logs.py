"""The check of `nla doctor` for logs of other providers, such as `hf/`: they hold only text, which is tokenised again before it is read.

Transformers answers a few chats as Inspect's `hf/` provider has it answer: its own chat template, greedy `generate`, and text without
special tokens. The messages are then read as `audit score` reads them. Right is what transformers computes at the tokens that it wrote.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from inspect_ai.model import ChatMessage, ChatMessageAssistant, ChatMessageUser

from nla.activations.capture import capture
from nla.activations.mean_vector import NEUTRAL_TEXTS
from nla.activations.stream_error import BOUNDS, largest_error
from nla.doctor.checks import STOPPED, Finding
from nla.doctor.reference import generated, hidden_states
from nla.models.loaded import LoadedModel
from nla.support.errors import HarnessError, ModelError, first_line
from nla.transcripts.tokens import Transcript
from nla.transcripts.transcript import build_transcript, context_of

NAME = "hf-logs"
_N_CHATS = 6
_REPLY_TOKENS = 24


@dataclass(frozen=True)
class _Chat:
    """A chat as transformers ran it, and as a log holds it."""

    run: list[int]
    """Token ids of the prompt and the reply, without the token that ends the reply."""
    n_prompt: int
    messages: list[ChatMessage]


def examine_logs(model: LoadedModel, layer: int) -> Iterator[Finding]:
    """Yield the findings: whether a log's text gives the tokens that were run, and the streams after block `layer` at the replies' tokens.

    A reply's text may have several spellings in tokens, and the log does not say which one the model wrote, so other tokens in a reply
    are counted but are no error. Streams are compared where all tokens agree.
    """
    try:
        if context_of(model.tokenizer, [ChatMessageUser(content="Hello")], ()).dated:
            dated = "the chat template writes the current time, which such a log does not hold"
            yield Finding(NAME, "tokens of chats, from their text", dated, "", None)
            return
        chats = model.run(lambda: [_answered(model, text) for text in NEUTRAL_TEXTS[:_N_CHATS]])
        read = [build_transcript(model.tokenizer, chat.messages, unmarked_replies=True) for chat in chats]
        prompts = [_begins(transcript, chat.run[: chat.n_prompt]) for transcript, chat in zip(read, chats, strict=True)]
        alike = [i for i, (transcript, chat) in enumerate(zip(read, chats, strict=True)) if _begins(transcript, chat.run)]
        figure = f"{sum(prompts)} of {len(chats)} prompts, {len(alike)} replies"
        yield Finding(NAME, "tokens of chats, from their text", figure, f"{len(chats)} prompts", all(prompts))
        tokens = {i: [token for token in read[i].response_tokens() if token.position < len(chats[i].run)] for i in alike}
        if any(tokens.values()):
            whole = hidden_states(model, [chats[i].run for i in alike], [layer])[layer]
            right = [stream[[token.position for token in tokens[i]]] for i, stream in zip(alike, whole, strict=True)]
            error, bound = largest_error([capture(model, read[i], tokens[i], layer) for i in alike], right), BOUNDS[model.precision.dtype]
            yield Finding(NAME, f"stream after block {layer} at replies", f"{error:.1e}", f"{bound:.0e}", error <= bound)
    except HarnessError as ex:
        yield Finding(NAME, STOPPED[1], str(ex), "", None)


def _begins(transcript: Transcript, ids: list[int]) -> bool:
    return transcript.passes[0].ids[: len(ids)] == ids


@torch.no_grad()
def _answered(model: LoadedModel, text: str) -> _Chat:
    question = f"What is this text about?\n\n{text}"
    template: Any = model.tokenizer.apply_chat_template
    try:
        rendered = template([{"role": "user", "content": question}], add_generation_prompt=True, tokenize=False)
    except Exception as ex:  # a template may raise anything
        raise ModelError(f"{model.source.name} cannot render a chat: {first_line(ex)}") from ex
    prompt = model.tokenizer.encode(rendered, add_special_tokens=False)
    run = generated(model, len(prompt), _REPLY_TOKENS, input_ids=torch.tensor([prompt], device=model.device))
    reply = [token for token in run[len(prompt) :] if token not in model.stop_ids]
    written = str(model.tokenizer.decode(reply, skip_special_tokens=True))
    return _Chat([*prompt, *reply], len(prompt), [ChatMessageUser(content=question), ChatMessageAssistant(content=written)])
