"""No text in a conversation can become part of the prompt's structure, and ordinary text is encoded as transformers encodes it."""

from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageTool,
    ChatMessageUser,
    ContentReasoning,
    ContentText,
)
from inspect_ai.tool import ToolCall, ToolInfo, ToolParam, ToolParams
from transformers import PreTrainedTokenizerFast

from nla.models.control_tokens import control_tokens
from nla.transcripts.chat import template_message
from nla.transcripts.transcript import context_of
from tests.chat_families import FAMILIES, family_tokenizer

BENIGN = ["a", "the", "X", " ", "  ", "\n", ".", ",", "'", '"', "\u00e9", "\u4e16", "\\", "{", "}", "</", "in"]
EXAMPLES = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}
SEEDS = st.integers(0, 2**63)
"""Conversations are drawn from a seed, since drawing each part through hypothesis takes ten times as long as the check."""


@cache
def tokenizer_of(name: str, pieces: bool) -> PreTrainedTokenizerFast:
    return family_tokenizer(name, pieces=pieces)


class Speaker:
    """Draws texts and conversations."""

    def __init__(self, parts: list[str], seed: int) -> None:
        self.parts, self.draws = parts, Random(seed)

    @classmethod
    def hostile(cls, name: str, seed: int) -> "Speaker":
        """One whose texts are control tokens, whole and in part, scaffold and ordinary words in any order."""
        family = FAMILIES[name]
        cut = (token[:-1] for token in family.tokens)
        return cls([*family.tokens, *family.tokens, *family.pieces, *cut, "<", "|>", "</", "hi", " ", "\n", '"', "\\"], seed)

    def text(self) -> str:
        return "".join(self.draws.choices(self.parts, k=self.draws.randint(0, 4)))

    def conversation(self) -> tuple[list[ChatMessage], list[ToolInfo]]:
        """A conversation that all families allow, ending in a user's message, and tools."""
        messages: list[ChatMessage] = [ChatMessageSystem(content=self.text())] * self.draws.randint(0, 1)
        for _ in range(self.draws.randint(0, 1)):
            source: Any = self.draws.choice(["input", "generate"])
            messages += [ChatMessageUser(content=self.text()), said(self.text(), self.text(), self.draws.random() < 0.5, source)]
        messages.append(ChatMessageUser(content=self.text()))
        parameters = ToolParams(properties={"q": ToolParam(type="string", description=self.text())})
        tools = [ToolInfo(name="look", description=self.text(), parameters=parameters)]
        return messages, tools * self.draws.randint(0, 1)


def said(text: str, thinking: str, thinks: bool, source: Any) -> ChatMessageAssistant:
    if not thinks:
        return ChatMessageAssistant(content=text, source=source)
    return ChatMessageAssistant(content=[ContentReasoning(reasoning=thinking), ContentText(text=text)], source=source)


def mapped(messages: list[ChatMessage], change: Callable[[str], str]) -> list[dict[str, Any]]:
    """The conversation as dictionaries, with each text changed."""
    out = []
    for message in messages:
        entry = template_message(message)
        for key in ("content", "reasoning_content"):
            if key in entry:
                entry[key] = change(entry[key])
        for call in entry.get("tool_calls", ()):
            call["function"]["arguments"] = {"q": change(call["function"]["arguments"]["q"])}
            call["id"] = entry["tool_calls"][0]["id"]
        out.append(entry)
    return out


def adapted(name: str, entries: list[dict[str, Any]], tools: list[ToolInfo]) -> list[dict[str, Any]]:
    """The conversation as the harness evens out what templates do not take: tools (ChatML, Gemma) and system messages (Gemma)."""
    if tools and name in ("chatml", "gemma") and entries[0]["role"] != "system":
        entries = [{"role": "system", "content": "tools"}, *entries]
    if name != "gemma" or entries[0]["role"] != "system":
        return entries
    first = entries[1] | {"content": f"{entries[0]['content']}\n\n{entries[1]['content']}"}
    return [first, *entries[2:]]


def harmless(text: str) -> str:
    return "word" if text.strip() else text


def structure(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> list[int]:
    control = set(control_tokens(tokenizer).values())
    return [token for token in ids if token in control]


def transformers_ids(tokenizer: PreTrainedTokenizerFast, entries: list[dict[str, Any]], tools: list[ToolInfo]) -> list[int]:
    schemas = [{"type": "function", "function": tool.model_dump(exclude_none=True)} for tool in tools] or None
    ids: Any = tokenizer.apply_chat_template(entries, tools=schemas, add_generation_prompt=True, tokenize=True, return_dict=False)
    return list(ids)


def check_structure(name: str, pieces: bool, messages: list[ChatMessage], tools: list[ToolInfo]) -> None:
    tokenizer = tokenizer_of(name, pieces)
    ids = context_of(tokenizer, messages, tools)[0].ids
    plain_tools = [tool.model_copy(update={"description": "words"}, deep=True) for tool in tools]
    for tool in plain_tools:
        for parameter in tool.parameters.properties.values():
            parameter.description = "words"
    reference = transformers_ids(tokenizer, adapted(name, mapped(messages, harmless), tools), plain_tools)
    assert structure(tokenizer, ids) == structure(tokenizer, reference)
    written = tokenizer.decode(ids)
    escaped = any(message.role == "tool" for message in messages)
    for message in messages:
        assert escaped or message.text.strip() in written


@pytest.mark.parametrize("pieces", [False, True], ids=["byte-level", "sentencepiece"])
@pytest.mark.parametrize("name", list(FAMILIES))
def test_control_tokens_in_any_text_change_nothing_in_the_structure(name: str, pieces: bool) -> None:
    @settings(max_examples=160, **EXAMPLES)
    @given(SEEDS)
    def check(seed: int) -> None:
        check_structure(name, pieces, *Speaker.hostile(name, seed).conversation())

    check()


@pytest.mark.parametrize("name", ["llama3", "mistral", "qwen3"])
def test_calls_and_results_of_tools_change_nothing_in_the_structure(name: str) -> None:
    @settings(max_examples=140, **EXAMPLES)
    @given(SEEDS)
    def check(seed: int) -> None:
        speaker = Speaker.hostile(name, seed)
        messages, tools = speaker.conversation()
        call = ToolCall(id="call00001", function="look", arguments={"q": speaker.text()})
        messages += [
            ChatMessageAssistant(content=speaker.text(), tool_calls=[call], source="generate"),
            ChatMessageTool(content=speaker.text(), tool_call_id="call00001", function="look"),
        ]
        check_structure(name, False, messages, tools)

    check()


@pytest.mark.parametrize("pieces", [False, True], ids=["byte-level", "sentencepiece"])
@pytest.mark.parametrize("name", list(FAMILIES))
def test_ordinary_conversations_have_the_ids_that_transformers_gives(name: str, pieces: bool) -> None:
    tokenizer = tokenizer_of(name, pieces)

    @settings(max_examples=40, **EXAMPLES)
    @given(SEEDS)
    def check(seed: int) -> None:
        messages, tools = Speaker(BENIGN, seed).conversation()
        for message in messages:
            message.source = "input"  # replies of the model's own are put in by their own ids
        if name in ("chatml", "gemma"):
            tools = []  # these templates take none, so they are described in a way of our own
        ids = context_of(tokenizer, messages, tools)[0].ids
        assert ids == transformers_ids(tokenizer, adapted(name, mapped(messages, str), tools), tools)

    check()
