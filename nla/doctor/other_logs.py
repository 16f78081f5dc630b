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
from nla.doctor.checks import BOUNDS, STOPPED, Finding
from nla.doctor.reference import hidden_states
from nla.models.loaded import LoadedModel
from nla.support.errors import HarnessError, ModelError, first_line
from nla.transcripts.transcript import build_transcript, context_of

NAME = "hf-logs"
_N_CHATS = 6
_REPLY_TOKENS = 24


@dataclass(frozen=True)
class _Chat:
    """A chat as transformers ran it, and as a log holds it."""

    prompt: list[int]
    reply: list[int]
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
        passes = [build_transcript(model.tokenizer, chat.messages, unmarked_replies=True) for chat in chats]
        prompts = [read.passes[0].ids[: len(chat.prompt)] == chat.prompt for read, chat in zip(passes, chats, strict=True)]
        same = [read.passes[0].ids[: len(run)] == run for read, run in zip(passes, map(_tokens_run, chats), strict=True)]
        figure = f"{sum(prompts)} of {len(chats)} prompts, {sum(same)} replies"
        yield Finding(NAME, "tokens of chats, from their text", figure, f"{len(chats)} prompts", all(prompts))
        errors = []
        for read, run in ((read, _tokens_run(chat)) for read, chat, alike in zip(passes, chats, same, strict=True) if alike):
            tokens = [token for token in read.response_tokens() if token.position < len(run)]
            right = hidden_states(model, [run], [layer])[layer][0][[token.position for token in tokens]]
            errors += ((capture(model, read, tokens, layer) - right).norm(dim=-1) / right.norm(dim=-1)).tolist()
        if errors:
            bound = BOUNDS[model.precision.dtype]
            yield Finding(NAME, f"stream after block {layer} at replies", f"{max(errors):.1e}", f"{bound:.0e}", max(errors) <= bound)
    except HarnessError as ex:
        yield Finding(NAME, STOPPED[1], str(ex), "", None)


def _tokens_run(chat: _Chat) -> list[int]:
    return [*chat.prompt, *chat.reply]


@torch.no_grad()
def _answered(model: LoadedModel, text: str) -> _Chat:
    question = f"What is this text about?\n\n{text}"
    template: Any = model.tokenizer.apply_chat_template
    try:
        rendered = template([{"role": "user", "content": question}], add_generation_prompt=True, tokenize=False)
    except Exception as ex:  # a template may raise anything
        raise ModelError(f"{model.source.name} cannot render a chat: {first_line(ex)}") from ex
    prompt = model.tokenizer.encode(rendered, add_special_tokens=False)
    ids = torch.tensor([prompt], device=model.device)
    generate: Any = model.network.generate
    generated = generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=_REPLY_TOKENS,
        eos_token_id=sorted(model.stop_ids),
        pad_token_id=0,
    )
    reply: list[int] = [token for token in generated[0, len(prompt) :].tolist() if token not in model.stop_ids]
    written = str(model.tokenizer.decode(reply, skip_special_tokens=True))
    return _Chat(prompt, reply, [ChatMessageUser(content=question), ChatMessageAssistant(content=written)])
