"""The `features` teacher: explanations computed from the text and the model's own next-token distribution, without an LLM.

An explanation has three short lines, from the widest view to the narrowest: the kind of text or conversation and its topic; the tokens
that the model itself expects next; and the words that the text ends with. The NLA paper asks an LLM which features a model would use to
predict what comes next. Here the features are computed, so that training data can be made on any machine; `teacher` asks an LLM.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import exp, log

from transformers import PreTrainedTokenizerBase

_WORD = re.compile(r"[A-Za-z][A-Za-z'’-]{3,}")
_TOPIC_WORDS = 3
_TOPIC_REACH = 60
"""Distance from the end, in words, at which a mention's weight has fallen to 1/e."""
_ENDS_TOKENS = 7
_NEXT_TOKENS = 4
_NEXT_SHARE = 0.05
"""Next tokens of lower probability are not named; nor are blank ones, which a reader cannot see."""


@dataclass(frozen=True)
class TokenContext:
    """What the teacher knows of one token: the text up to it, and the model's likeliest next tokens with their probabilities."""

    ids: Sequence[int]
    """Token ids up to the token, itself included."""
    situation: str
    """The kind of text or conversation, in words."""
    following: Sequence[tuple[int, float]]
    """Token ids and probabilities, the likeliest first."""
    asked: str = ""
    """In a chat, the text before the reply."""
    reply_from: int = 0
    """In a chat, the position of the reply's first token."""


class Rarity:
    """Rarity of words: log((documents + 1) / (documents with the word + 1)), counted over the documents given."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.n = 0
        self.counts: Counter[str] = Counter()
        for text in texts:
            self.n += 1
            self.counts.update({word.lower() for word in _WORD.findall(text[:20_000])})

    def __call__(self, word: str) -> float:
        """Return the rarity of a lower-case word in nats."""
        return log((self.n + 1) / (self.counts[word] + 1))


def explain(context: TokenContext, tokenizer: PreTrainedTokenizerBase, rarity: Rarity) -> str:
    """Return the teacher's explanation of one token."""
    said = context.ids[context.reply_from :]
    ending = ending_words(said, tokenizer)
    topic_text = f"{context.asked} {tokenizer.decode(list(said), skip_special_tokens=True)}"
    topic = ", ".join(topic_words(topic_text, rarity, ending))
    first = ". ".join(filter(None, [context.situation or "Text", f"Topic: {topic}" if topic else ""]))
    candidates = dict.fromkeys(token_text(token, tokenizer) for token in _named(context.following))
    following = " or ".join(f'"{text}"' for text in candidates if text.strip()) or "nothing that can be named"
    label = "Reply begins" if context.reply_from and len(said) <= _ENDS_TOKENS else "Ends"
    # The ending comes last and without quotation marks: an AR that reads at the explanation's last token then starts from the base
    # model's own vector at the token that the explanation is about.
    return f"{first}.\nNext: {following}.\n{label}: {ending}"


def _named(following: Sequence[tuple[int, float]]) -> list[int]:
    likely = [token for token, share in following if share >= _NEXT_SHARE][:_NEXT_TOKENS]
    return likely or [token for token, _ in following[:1]]


def topic_words(text: str, rarity: Rarity, ending: str) -> list[str]:
    """Return up to three words for a text's topic: frequent near its end, rare elsewhere, not alike, and not in the quoted ending."""
    words = [word.lower().rstrip("'’-") for word in _WORD.findall(text)]
    quoted = {word.lower()[:5] for word in _WORD.findall(ending)}
    weights: Counter[str] = Counter()
    for distance, word in enumerate(reversed(words[-400:])):
        weights[word] += exp(-distance / _TOPIC_REACH)  # type: ignore[assignment]
    ranked = sorted(weights, key=lambda word: (-weights[word] * rarity(word) ** 1.5, word))
    chosen: dict[str, str] = {}
    for word in ranked:
        if word[:5] not in chosen and word[:5] not in quoted and rarity(word) > 1:
            chosen[word[:5]] = word
        if len(chosen) == _TOPIC_WORDS:
            break
    return list(chosen.values())


def ending_words(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the last few tokens as text on one line, starting at the beginning of a word."""
    text = str(tokenizer.decode(list(ids[-_ENDS_TOKENS:])))
    if len(ids) > _ENDS_TOKENS and not text[:1].isspace():
        before = str(tokenizer.decode(list(ids[-_ENDS_TOKENS - 1 : -_ENDS_TOKENS])))
        if before[-1:].isalnum() and text[:1].isalnum() and (cut := re.search(r"\s", text)):
            text = text[cut.start() :]
    return one_line(text).strip(" ")


def token_text(token: int, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a token as text on one line; the end-of-turn token is called `end of reply`."""
    if token in tokenizer.all_special_ids:
        return "end of reply" if token == tokenizer.eos_token_id else str(tokenizer.convert_ids_to_tokens(token))
    return one_line(str(tokenizer.decode([token])))


def one_line(text: str) -> str:
    r"""Return a text on one line: line breaks and tabs become `\n` and `\t`, and bytes that cannot be decoded are left out."""
    return text.replace("\ufffd", "").replace("\n", "\\n").replace("\t", "\\t")
