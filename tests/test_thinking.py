"""Thinking blocks: as Inspect's own parser reads them, with token channels that follow; encrypted reasoning."""

from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inspect_ai.model import ChatMessageAssistant, ChatMessageUser, Content, ContentReasoning, ContentText
from inspect_ai.model._reasoning import parse_content_with_reasoning

from nla.transcripts.borders import contains_stop, decoded
from nla.transcripts.chat import assistant_message, reasoning_parts, reasoning_text, with_encrypted_parts
from nla.transcripts.reply import record, reply_of
from nla.transcripts.thinking import split_thinking
from nla.transcripts.tokens import Channel
from nla.transcripts.transcript import build_transcript
from tests.chat_families import sentencepiece_tokenizer
from tests.conftest import CHATML, byte_tokenizer

TOKENIZER = byte_tokenizer()
PARTS = st.sampled_from(["<think>", "</think>", "a", " ", "\n", "B", "<think x=1>", "</thin"])


@settings(max_examples=400, deadline=None)
@given(st.lists(PARTS, max_size=9).map("".join), st.booleans())
def test_blocks_are_read_as_inspects_parser_reads_them(text: str, opened: bool) -> None:
    answer, thinking = parse_content_with_reasoning(f"<think>{text}" if opened else text)
    if thinking is None and opened:  # the parser would show a tag that the model did not write; all of the reply is thinking
        assert split_thinking(text, opened) == (text.strip(), "")
    else:
        assert split_thinking(text, opened) == (thinking.reasoning if thinking else "", answer)


@pytest.mark.parametrize(
    ("raw", "opened", "channels"),
    [
        ("<think>plan</think>B", False, [("SCAFFOLD", "<think>"), ("THINKING", "plan"), ("SCAFFOLD", "</think>"), ("ANSWER", "B")]),
        ("<think>plan, cut off", False, [("ANSWER", "<think>plan, cut off")]),
        (
            "<think>Out <think>in</think> so A</think>\nB",
            False,
            [("SCAFFOLD", "<think>"), ("THINKING", "Out <think>in</think> so A"), ("SCAFFOLD", "</think>"), ("ANSWER", "\nB")],
        ),
        ("plan</think>\n\nB", True, [("THINKING", "plan"), ("SCAFFOLD", "</think>"), ("ANSWER", "\n\nB")]),
        ("plan, cut off", True, [("THINKING", "plan, cut off")]),
        (
            "First.<think>plan</think>B",
            False,
            [("ANSWER", "First."), ("SCAFFOLD", "<think>"), ("THINKING", "plan"), ("SCAFFOLD", "</think>"), ("ANSWER", "B")],
        ),
        ("plan</think>\n\nB", False, [("ANSWER", "plan</think>\n\nB")]),
    ],
    ids=["closed", "never closed", "nested", "opened by the prompt", "opened, never closed", "text before it", "only closed"],
)
def test_channels_of_tokens_follow_the_block(raw: str, opened: bool, channels: list[tuple[str, str]]) -> None:
    message = assistant_message(raw, [], model="m", family="x", opened=opened)
    ids = TOKENIZER.encode(raw, add_special_tokens=False)
    message.metadata = record(TOKENIZER, ids, 5, [])
    reply = reply_of(TOKENIZER, message, opened)
    runs = groupby(zip(reply.channels, reply.ids, strict=True), key=lambda pair: pair[0])
    assert [(channel.name, TOKENIZER.decode([token for _, token in run])) for channel, run in runs] == channels


@pytest.mark.parametrize(
    ("logged", "thinking", "answer"), [("plan</think>\n\nB", "plan", "\n\nB"), ("B", "", "B"), ("<think>\nplan</think>B", "\nplan", "B")]
)
def test_the_text_of_another_provider_may_close_a_block_that_the_prompt_opened(logged: str, thinking: str, answer: str) -> None:
    tokenizer = byte_tokenizer(CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}"))
    message = ChatMessageAssistant(content=logged, source="generate")
    transcript = build_transcript(tokenizer, [ChatMessageUser(content="q"), message])
    read = {channel: [t.token_id for t in transcript.response_tokens() if t.channel is channel] for channel in Channel}
    assert tokenizer.decode(read[Channel.THINKING]).removeprefix("<think>") == thinking
    assert tokenizer.decode(read[Channel.ANSWER]) == answer


def test_a_model_cannot_hide_its_thinking_by_the_tags_attributes() -> None:
    message = assistant_message('<think redacted="true" signature="rs_1">I am tested</think>B', [], model="m", family="x")
    assert reasoning_text(message) == "I am tested"
    assert not build_transcript(TOKENIZER, [ChatMessageUser(content="q"), message]).has_encrypted_reasoning


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["<summary>", "</summary>", "a", " ", "\n", "<think>", "</think>"]), max_size=9).map("".join))
def test_a_summary_inside_thinking_is_kept_apart_as_by_inspects_parser(inner: str) -> None:
    raw = f"<think>x{inner}x</think>B"
    message = assistant_message(raw, [], model="m", family="x")
    answer, parsed = parse_content_with_reasoning(raw)
    assert parsed is not None
    assert [(part.reasoning, part.summary) for part in reasoning_parts(message)] == [(parsed.reasoning, parsed.summary)]
    assert message.text == answer
    assert {*(parsed.reasoning.split()), *((parsed.summary or "").split())} <= {*reasoning_text(message).split()}


@pytest.mark.parametrize("pieces", [False, True], ids=["byte-level", "sentencepiece"])
def test_thinking_and_answer_are_separated_where_its_tags_are_special_tokens(pieces: bool) -> None:
    tokenizer = sentencepiece_tokenizer() if pieces else byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<think>", "</think>"]})
    ids = tokenizer.encode("<think>plan a</think>", add_special_tokens=False)
    ids += tokenizer.encode("B", add_special_tokens=False) + tokenizer.encode("<|im_start|>", add_special_tokens=False)
    text = decoded(tokenizer, ids, skip_special=True)
    assert "<|im_start|>" not in text
    message = assistant_message(text, [], model="m", family="x")
    assert (reasoning_text(message), message.text) == ("plan a", "B")
    assert contains_stop(tokenizer, ids, ["</think>"])
    message.metadata = record(tokenizer, ids, 5, [])
    transcript = build_transcript(tokenizer, [ChatMessageUser(content="q"), message])
    read = {channel: [t.token_id for t in transcript.response_tokens() if t.channel is channel] for channel in Channel}
    assert tokenizer.decode(read[Channel.THINKING]).strip() == "plan a"
    assert tokenizer.decode(read[Channel.ANSWER]).strip() == "B"


PAYLOAD = "QUJDREVG" * 10


@pytest.mark.parametrize("as_list", [False, True])
def test_encrypted_reasoning_that_stands_in_the_text_is_no_answer(as_list: bool) -> None:
    text = f'<think signature="rs_1" redacted="true">\n<summary>This is a test.</summary>\n{PAYLOAD}\n</think>\nFour.'
    content: list[Content] = [ContentText(text=text)]
    message = ChatMessageAssistant(content=content if as_list else text, source="generate")
    parted = with_encrypted_parts(message)
    assert (reasoning_text(parted), parted.text) == ("This is a test.", "Four.")
    transcript = build_transcript(TOKENIZER, [ChatMessageUser(content="q"), message, ChatMessageUser(content="and?"), message])
    assert transcript.has_encrypted_reasoning
    assert all(PAYLOAD not in TOKENIZER.decode(run.ids) for run in transcript.passes)
    assert TOKENIZER.decode([token.token_id for token in transcript.response_tokens()]) == "Four.Four."


def test_readable_thinking_is_never_taken_for_a_payload() -> None:
    text = '<think redacted="true">I know that I am being tested</think>Four.'
    message = ChatMessageAssistant(content=text, source="generate")
    assert with_encrypted_parts(message) is message or with_encrypted_parts(message).content == [ContentText(text=text)]
    transcript = build_transcript(TOKENIZER, [ChatMessageUser(content="q"), message])
    assert TOKENIZER.decode([token.token_id for token in transcript.response_tokens()]) == "I know that I am being testedFour."


def test_of_encrypted_reasoning_the_summary_is_read_and_no_token() -> None:
    parts = [ContentReasoning(reasoning="QmxvYg==", summary="This is a test.", redacted=True), ContentText(text="Four.")]
    message = ChatMessageAssistant(content=parts, source="generate")
    transcript = build_transcript(TOKENIZER, [ChatMessageUser(content="q"), message, ChatMessageUser(content="and?"), message.model_copy()])
    assert reasoning_text(message) == "This is a test."
    assert transcript.has_encrypted_reasoning
    assert not transcript.exact
    assert all("QmxvYg" not in TOKENIZER.decode(run.ids) for run in transcript.passes)
    answers = [token for token in transcript.response_tokens() if token.channel is Channel.ANSWER]
    assert TOKENIZER.decode([token.token_id for token in answers]) == "Four.Four."
    assert len(answers) == len(transcript.response_tokens())
