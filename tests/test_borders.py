"""Borders of tokens in text, for tokenizers in which one character is several tokens: channels, stop sequences and cuts."""

from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from nla.transcripts.borders import contains_stop, tokens_within
from nla.transcripts.chat import assistant_message
from nla.transcripts.reply import record, reply_of
from nla.transcripts.tokens import Channel
from tests.chat_families import bytelevel_tokenizer, sentencepiece_tokenizer

TOKENIZERS = {"byte-level": bytelevel_tokenizer(), "byte fallback": sentencepiece_tokenizer()}
CJK, COMBINED = ["世", "界", "世a", "한"], ["é", "e\u0301", "\u0915\u094d\u0937", "ﬁ"]
EMOJI = ["😀", "👩\u200d🚀", "🏳\ufe0f\u200d🌈"]
LETTERS = ["a", "the", " the", " ", "\n", "</", "\u200b", *CJK, *COMBINED, *EMOJI]
SETTINGS = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}
SEEDS = st.integers(0, 2**63)


def text_of(seed: int) -> str:
    draws = Random(seed)
    return "".join(draws.choices(LETTERS, k=draws.randint(1, 12)))


def spans(tokenizer: PreTrainedTokenizerFast, text: str) -> tuple[list[int], list[int]]:
    """Ids, and the end of each token by the tokenizer's own offsets; a token that ends inside a character ends before it."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ends = [end for _, end in encoded["offset_mapping"]]
    following = [start for start, _ in encoded["offset_mapping"][1:]] + [len(text)]
    return encoded["input_ids"], [min(end, start) for end, start in zip(ends, following, strict=True)]


@pytest.mark.parametrize("name", list(TOKENIZERS))
def test_borders_are_those_of_the_tokenizers_offsets(name: str) -> None:
    tokenizer = TOKENIZERS[name]

    @settings(max_examples=1_000, **SETTINGS)
    @given(SEEDS)
    def check(seed: int) -> None:
        text = "x" + text_of(seed)  # the decoder of byte fallback drops one space at the start
        ids, ends = spans(tokenizer, text)
        border = Random(seed).randint(0, len(text) - 1)
        completed = [end for end in ends if end <= border]
        wanted = next((i + 1 for i, end in enumerate(ends) if end == max(completed, default=0)), 0) if max(completed, default=0) else 0
        assert tokens_within(tokenizer, ids, border) == wanted
        assert tokens_within(tokenizer, ids, len(text)) == len(ids)

    check()


@pytest.mark.parametrize("name", list(TOKENIZERS))
def test_channels_part_thinking_from_answers_in_any_script(name: str) -> None:
    tokenizer = TOKENIZERS[name]

    @settings(max_examples=300, **SETTINGS)
    @given(SEEDS, SEEDS)
    def check(first: int, second: int) -> None:
        thinking, answer = f"x{text_of(first)}x", f"x{text_of(second)}x"
        raw = f"<think>{thinking}</think>{answer}"
        ids = tokenizer.encode(raw, add_special_tokens=False)
        message = assistant_message(raw, [], model="m", family="x")
        message.metadata = record(tokenizer, ids, 1, [])
        reply = reply_of(tokenizer, message, opened=False)
        for channel, wanted in ((Channel.THINKING, thinking), (Channel.ANSWER, answer)):
            assert tokenizer.decode([i for i, c in zip(reply.ids, reply.channels, strict=True) if c is channel]) == wanted

    check()


@pytest.mark.parametrize("name", list(TOKENIZERS))
def test_stop_sequences_are_seen_at_the_token_that_completes_them(name: str) -> None:
    tokenizer = TOKENIZERS[name]

    @settings(max_examples=300, **SETTINGS)
    @given(SEEDS)
    def check(seed: int) -> None:
        text = "x" + text_of(seed) * 4
        ids, ends = spans(tokenizer, text)
        draws = Random(seed)
        start = draws.randint(1, len(text) - 1)
        stop = text[start : start + draws.randint(1, 4)]
        completed = text.index(stop) + len(stop)
        first = next(i + 1 for i in range(len(ids)) if ends[i] >= completed)
        assert contains_stop(tokenizer, ids[:first], [stop])
        assert not contains_stop(tokenizer, ids[: first - 1], [stop])

    check()
