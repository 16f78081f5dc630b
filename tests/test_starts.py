"""Where a sampled token stands in the text that a reader sees, compared with the text itself."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inspect_ai.model import ChatMessage, ChatMessageUser

from nla.transcripts.chat import assistant_message, written_thinking
from nla.transcripts.reply import record
from nla.transcripts.starts import text_starts
from nla.transcripts.tokens import Channel
from nla.transcripts.transcript import build_transcript
from tests.conftest import byte_tokenizer

TOKENIZER = byte_tokenizer()


def conversation(*raw: str) -> list[ChatMessage]:
    messages: list[ChatMessage] = []
    for text in raw:
        message = assistant_message(text, (), model="m", family="llama")
        message.metadata = record(TOKENIZER, TOKENIZER.encode(text, add_special_tokens=False), 0, (), message=message)
        messages += [ChatMessageUser(content="What is it?", source="input"), message]
    return messages


def check(messages: list[ChatMessage]) -> int:
    """Compare every token with the character that stands at its start; return the number of tokens that have one."""
    transcript = build_transcript(TOKENIZER, messages)
    tokens = transcript.response_tokens()
    starts = text_starts(TOKENIZER, transcript, messages, tokens)
    known = 0
    for token, start in zip(tokens, starts, strict=True):
        if start is None:
            continue
        message = messages[token.message]
        shown = written_thinking(message) if token.channel is Channel.THINKING else message.text
        piece = TOKENIZER.decode([token.token_id])
        assert "\N{REPLACEMENT CHARACTER}" in piece or shown[start : start + len(piece)] == piece[: len(shown) - start]
        known += 1
    return known


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=30), min_size=1, max_size=3))
def test_a_token_stands_where_its_start_says(texts: list[str]) -> None:
    safe = [text.replace("<", "(").replace("|", "/") for text in texts]
    check(conversation(*(text for text in safe if text.strip())) or conversation("a"))


def test_thinking_and_answer_have_places_of_their_own() -> None:
    messages = conversation("<think>\nfour or 4\n</think>\n\n 4 and 4", "again 4")
    assert check(messages) == sum(map(len, ("four or 4", "4 and 4", "again 4")))


@pytest.mark.parametrize("edit", [{"content": "quite another text"}])
def test_a_text_that_a_solver_moved_has_no_places(edit: dict[str, Any]) -> None:
    messages = conversation("It is four.")
    transcript = build_transcript(TOKENIZER, messages)
    moved = [messages[0], messages[1].model_copy(update=edit)]
    assert set(text_starts(TOKENIZER, transcript, moved, transcript.response_tokens())) == {None}
