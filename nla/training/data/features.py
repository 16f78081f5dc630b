"""The `features` teacher: explanations computed from the text and the model's own next-token distribution, without any LLM.

Three short lines, from the widest view to the narrowest: what situation the text stands in and what it is about; what the model
itself expects next; and the words the text ends with. The reference asks an LLM for the features a model would use to predict
what comes next; here they are computed, so that anybody can make training data anywhere.
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
"""Words after which a mention's weight has fallen to 1/e."""
_ENDS_TOKENS = 7
_NEXT_TOKENS = 4
_NEXT_SHARE = 0.05
"""Next tokens below this probability are not named."""


@dataclass(frozen=True)
class Moment:
    """What is known of one position: the context up to it, and the model's likeliest next tokens with their probabilities."""

    ids: Sequence[int]
    situation: str
    following: Sequence[tuple[int, float]]
    asked: str = ""
    """What was said in a chat before the reply."""
    reply_from: int = 0
    """First token of the reply, in a chat."""


class Rarity:
    """How rare words are: log(documents / documents with the word), counted over the documents given."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.n = 0
        self.counts: Counter[str] = Counter()
        for text in texts:
            self.n += 1
            self.counts.update({word.lower() for word in _WORD.findall(text[:20_000])})

    def __call__(self, word: str) -> float:
        """Rarity of a lower-case word in nats."""
        return log((self.n + 1) / (self.counts[word] + 1))


def explain(moment: Moment, tokenizer: PreTrainedTokenizerBase, rarity: Rarity) -> str:
    """The explanation of one position."""
    said = moment.ids[moment.reply_from :]
    ending = ending_words(said, tokenizer)
    topic_text = f"{moment.asked} {tokenizer.decode(list(said), skip_special_tokens=True)}"
    topic = ", ".join(topic_words(topic_text, rarity, ending))
    first = ". ".join(filter(None, [moment.situation or "Text", f"Topic: {topic}" if topic else ""]))
    following = " or ".join(f'"{token_text(i, tokenizer)}"' for i in _named(moment.following))
    label = "Reply begins" if moment.reply_from and len(said) <= _ENDS_TOKENS else "Ends"
    # The ending stands last and bare: an AR that reads at the last token of the text then starts from the base model's own vector
    # at the very token that the explanation is about.
    return f"{first}.\nNext: {following}.\n{label}: {ending}"


def _named(following: Sequence[tuple[int, float]]) -> list[int]:
    likely = [token for token, share in following if share >= _NEXT_SHARE][:_NEXT_TOKENS]
    return likely or [token for token, _ in following[:1]]


def topic_words(text: str, rarity: Rarity, ending: str) -> list[str]:
    """The words a text is about: often and lately said, rare elsewhere, no two alike, and none that the ending quotes."""
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
    """The last few tokens as text on one line, from a word's beginning."""
    text = str(tokenizer.decode(list(ids[-_ENDS_TOKENS:])))
    if len(ids) > _ENDS_TOKENS and not text[:1].isspace():
        before = str(tokenizer.decode(list(ids[-_ENDS_TOKENS - 1 : -_ENDS_TOKENS])))
        if before[-1:].isalnum() and text[:1].isalnum() and (cut := re.search(r"\s", text)):
            text = text[cut.start() :]
    return visible(text).strip(" ")


def token_text(token: int, tokenizer: PreTrainedTokenizerBase) -> str:
    """A token as text on one line; the end of a reply by name."""
    if token in tokenizer.all_special_ids:
        return "end of reply" if token == tokenizer.eos_token_id else str(tokenizer.convert_ids_to_tokens(token))
    return visible(str(tokenizer.decode([token])))


def visible(text: str) -> str:
    r"""Text on one line: line breaks and tabs written as \n and \t, undecodable bytes left out."""
    return text.replace("\ufffd", "").replace("\n", "\\n").replace("\t", "\\t")
