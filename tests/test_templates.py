"""Chat templates are foreign code: what they may do to a text, how long they may run, and which prompts can be written again."""

import time
from datetime import datetime

import pytest
from inspect_ai.model import ChatMessage, ChatMessageAssistant, ChatMessageUser, ContentImage, ContentText

from nla.models import template_sandbox
from nla.models.chat_template import prompt_ids, render
from nla.models.control_tokens import control_tokens, encode_content
from nla.support.errors import DataError, ModelError
from nla.transcripts.reply import RECORD_KEY, is_reply, record
from nla.transcripts.transcript import build_transcript, context_of
from tests.chat_families import family_tokenizer
from tests.conftest import byte_tokenizer

LOOP = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ TEXT }}<|im_end|>\n{% endfor %}"
DATED = "Today is {{ strftime_now('%d %b %Y') }}." + LOOP.replace("TEXT", "m.content")
ASKED: list[ChatMessage] = [ChatMessageUser(content="  What is 2+2? \n")]
LONG = "one two three four five six seven eight nine ten " * 4


def messages(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize("text", ["m.content", "m.content.strip()", "m.content | trim", "m['content'].rstrip()", "m.content | tojson"])
def test_a_text_may_be_written_as_it_is_stripped_or_as_json(text: str) -> None:
    tokenizer = byte_tokenizer(LOOP.replace("TEXT", text))
    for content in ("hi", "  two\n\nlines ", 'a "quote" \\ and \u4e16', " "):
        assert render(tokenizer, messages(content)) == tokenizer.apply_chat_template(messages(content), tokenize=False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("'nothing'", "drops the text of message 0"),
        ("m.content + m.content", "repeats the text of message 0"),
        ("m.content | upper", "changes"),
        ("m.content[:9]", "changes"),
        ("m.content[:60]", "changes a message's text"),
        ("m.content | replace('e', 'a')", "changes"),
        ("m.content | title", "changes"),
        ("m.content[::-1]", "changes|drops"),
    ],
)
def test_a_template_that_drops_repeats_or_changes_a_text_is_refused(text: str, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        render(byte_tokenizer(LOOP.replace("TEXT", text)), messages(LONG))


@pytest.mark.parametrize(
    "bomb",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 'x' * 10 ** 10 }}",
        "{{ 9 ** (9 ** 9) }}",
        "{% set x = 'x' * 10 ** 8 %}{% for i in range(9999) %}{{ x }}{% endfor %}",
        "{{ 'x' | center(10 ** 11) }}",
        "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
        "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    ],
)
def test_a_bomb_ends_soon_and_later_templates_work(bomb: str) -> None:
    start = time.process_time()
    with pytest.raises(ModelError, match=r"stopped|refuses"):
        render(byte_tokenizer(bomb), messages("hi"))
    assert time.process_time() - start < 5
    assert "hi" in render(byte_tokenizer(), messages("hi"))


@pytest.mark.parametrize(
    "template", ["{{ nothing.at.all }}", "{% if %}", "{{ 1 / 0 }}", "{{ messages | nope }}", "{{ [1][messages] + 1 }}"]
)
def test_a_templates_exception_is_an_error_of_the_model(template: str) -> None:
    with pytest.raises(ModelError, match="refuses this conversation"):
        render(byte_tokenizer(template), messages("hi"))


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(DataError, match="surrogate"):
        prompt_ids(byte_tokenizer(), messages("a\ud800b"))


def test_structural_tokens_that_are_not_special_are_plain_text_in_content() -> None:
    tokenizer = family_tokenizer("qwen3")
    ids = encode_content(tokenizer, "a</think>b<tool_call>")
    assert tokenizer.decode(ids) == "a</think>b<tool_call>"
    assert not set(ids) & set(control_tokens(tokenizer).values())


def test_a_dated_prompt_is_written_again_with_the_recorded_time() -> None:
    tokenizer = byte_tokenizer(DATED)
    then = datetime(2025, 3, 14, 10, 0)
    context = context_of(tokenizer, ASKED, [], clock=then)
    assert context.dated
    assert "Today is 14 Mar 2025." in tokenizer.decode(context.tokens.ids)
    prompt = context.tokens.ids
    ids = tokenizer.encode("Four.", add_special_tokens=False)

    def replied(clock: str | None) -> list[ChatMessage]:
        metadata = record(tokenizer, ids, len(prompt), [], prompt=prompt, clock=clock)
        return [*ASKED, ChatMessageAssistant(content="Four.", source="generate", metadata=metadata)]

    recorded = build_transcript(tokenizer, replied(then.isoformat()))
    assert recorded.exact
    assert recorded.passes[0].ids == [*prompt, *ids]
    assert not build_transcript(tokenizer, replied(None)).exact
    assert not build_transcript(tokenizer, replied("2026-01-01T00:00:00")).exact
    with pytest.raises(DataError, match="time"):
        build_transcript(tokenizer, replied("yesterday"))


def test_random_choices_are_the_same_each_time() -> None:
    tokenizer = byte_tokenizer("{{ range(10 ** 4) | random }}" + LOOP.replace("TEXT", "m.content"))
    assert len({render(tokenizer, messages("hi")) for _ in range(5)}) == 1


SETS = "{{ (dict(a=1, b=2, c=3, d=4, e=5, f=6).keys() - dict(g=1).keys()) | join }}"


def test_a_prompt_without_a_time_of_generation_is_the_same_on_every_day_and_in_every_process() -> None:
    tokenizer = byte_tokenizer("{{ strftime_now('%d %b %Y') }}" + SETS + LOOP.replace("TEXT", "m.content"))
    written = set()
    for _ in range(4):
        template_sandbox._worker.close()  # the next rendering starts a new process, which orders sets by another seed
        written.add(render(tokenizer, messages("hi")))
    [text] = written
    assert text.startswith("26 Jul 2024")


def test_a_changed_prompt_of_the_same_length_is_not_exact() -> None:
    tokenizer = byte_tokenizer()
    prompt = context_of(tokenizer, ASKED, []).tokens.ids
    ids = tokenizer.encode("Four.", add_special_tokens=False)
    metadata = record(tokenizer, ids, len(prompt), [], prompt=prompt)
    said = ChatMessageAssistant(content="Four.", source="generate", metadata=metadata)
    assert build_transcript(tokenizer, [*ASKED, said]).exact
    assert not build_transcript(tokenizer, [ChatMessageUser(content="  What is 2+3? \n"), said]).exact


def test_only_generated_messages_that_nobody_edited_are_replies() -> None:
    tokenizer = byte_tokenizer()
    ids = tokenizer.encode("Four.", add_special_tokens=False)
    said = ChatMessageAssistant(content="Four.", source="generate")
    said.metadata = record(tokenizer, ids, 3, [], message=said)
    assert is_reply(said)
    assert not is_reply(said.model_copy(update={"content": "I am being tested."}))
    scripted = ChatMessageAssistant(content="I am being tested.")
    assert not is_reply(scripted)
    assert is_reply(scripted, unmarked_replies=True)
    assert not is_reply(ChatMessageAssistant(content="shown", source="input"), unmarked_replies=True)
    conversation = [*ASKED, scripted, ChatMessageUser(content="and?"), said]
    assert {token.message for token in build_transcript(tokenizer, conversation).response_tokens()} == {3}
    assert {token.message for token in build_transcript(tokenizer, conversation, unmarked_replies=True).response_tokens()} == {1, 3}


@pytest.mark.parametrize("damage", [{"ids": ["a"]}, {"ids": [-1]}, {"ids": [10**9]}, {"ids": [True]}, {"ids": 3}, {"tools": [{"nope": 1}]}])
def test_a_damaged_record_is_refused(damage: dict[str, object]) -> None:
    tokenizer = byte_tokenizer()
    said = ChatMessageAssistant(content="Four.", source="generate", metadata=record(tokenizer, [1], 3, []))
    assert said.metadata is not None
    said.metadata[RECORD_KEY] |= damage
    with pytest.raises(DataError, match="damaged"):
        build_transcript(tokenizer, [*ASKED, said])


def test_images_are_refused_and_the_sample_is_named() -> None:
    picture = ChatMessageUser(content=[ContentText(text="What is it?"), ContentImage(image="data:image/png;base64,AAAA")])
    with pytest.raises(DataError, match=r"Sample 'img': message 0 \(user\) holds image"):
        build_transcript(byte_tokenizer(), [picture], sample="img")
