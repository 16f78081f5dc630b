"""What is measured on the explanations' text alone, and the changed texts that show what a reconstruction rests on."""

import random
import re
from collections import Counter
from collections.abc import Sequence

from nla.support.seeds import seeded_generator

_STEM = 5
"""Letters that two words of one stem share."""


def shuffled_words(text: str, seed: int) -> str:
    """Return the same words in a seeded random order: what a reconstruction keeps then does not depend on the wording."""
    words = text.split()
    random.Random(seed).shuffle(words)
    return " ".join(words)


def reworded(text: str) -> str:
    """Return the lines in reverse order and in lower case. A reader learns the same; what a reconstruction loses, it took from the form."""
    return "\n".join(reversed(text.lower().splitlines()))


def paraphrased(text: str, *key: object) -> str:
    """Return a text with its lines in reverse order, in lower case, or both, chosen by a seeded draw."""
    choice = int(seeded_generator("paraphrase", *key).integers(3))
    ordered = text if choice == 0 else "\n".join(reversed(text.splitlines()))
    return ordered if choice == 1 else ordered.lower()


def repeated_items(text: str) -> int:
    """Return how many words or quoted candidates an explanation lists again in a line that listed them before.

    The last line is left out, since it quotes a text, in which words may well come twice; so are words of fewer than four letters.
    """
    count = 0
    for line in text.splitlines()[:-1]:
        quoted = re.findall(r'"([^"]*)"', line)
        words = re.findall(r"\w{4,}", re.sub(r'"[^"]*"', " ", line).lower())
        count += len(quoted) - len(set(quoted)) + len(words) - len(set(words))
    return count


def repeating_share(texts: Sequence[str]) -> float:
    """Return the share of explanations with repeated items."""
    return sum(repeated_items(text) > 0 for text in texts) / len(texts)


def quoted_words(text: str) -> list[str]:
    """Return the words that an explanation quotes from the text, in lower case.

    They are the words in quotation marks in its last line, or all words after that line's colon where it has no quotation marks.
    """
    last = (text.splitlines() or [""])[-1]  # a failed explanation may be empty
    quotes = re.findall(r'"([^"]*)"', last) or [last.partition(": ")[2]]
    return [word for quote in quotes for word in re.findall(r"\w+", quote.lower())]


def quote_verdicts(texts: Sequence[str], contexts: Sequence[str]) -> dict[str, float]:
    """Return the shares of quoted words that are `in context`, `supported` or `invented`; NaN where nothing is quoted.

    A word is in context where the text before the token holds it (ignoring case), supported where that text holds another word with
    the same first five letters, and invented otherwise.

    Args:
        texts: explanations.
        contexts: the document's text up to each explained token.
    """
    verdicts: Counter[str] = Counter()
    for text, context in zip(texts, contexts, strict=True):
        verdicts.update(verdict for _, verdict in _judged_words(text, context))
    total = sum(verdicts.values())
    return {name: verdicts[name] / total if total else float("nan") for name in ("in context", "supported", "invented")}


def invented_words(text: str, context: str) -> list[str]:
    """Return the words that an explanation quotes, in lower case, where the text before the token holds neither them nor their stem."""
    return [word for word, verdict in _judged_words(text, context) if verdict == "invented"]


def _judged_words(text: str, context: str) -> list[tuple[str, str]]:
    """Return every quoted word with its verdict, in order."""
    words = set(re.findall(r"\w+", context.lower()))
    stems = {word[:_STEM] for word in words if len(word) >= _STEM}
    return [(word, "in context" if word in words else "supported" if word[:_STEM] in stems else "invented") for word in quoted_words(text)]


def claims(text: str) -> set[str]:
    """Return what an explanation claims of the text as a whole: its words of at least four letters in all lines but the last.

    Candidates for the next token, in quotation marks, are left out: they belong to one token.
    """
    lines = text.splitlines()[:-1] or text.splitlines()
    return set(re.findall(r"\w{4,}", re.sub(r'"[^"]*"', " ", "\n".join(lines)).lower()))


def recurring_share(texts: Sequence[str], others: Sequence[str]) -> float:
    """Return the share of claims in `texts` that the explanation at the same place in `others` makes too; NaN without claims."""
    pairs = [(claims(text), claims(other)) for text, other in zip(texts, others, strict=True)]
    total = sum(len(made) for made, _ in pairs)
    return sum(len(made & again) for made, again in pairs) / total if total else float("nan")


def without_line(text: str, line: int) -> str:
    """Return a text without one of its lines (0-based, negative from the end); the same text where it has no such line, or no other."""
    lines = text.splitlines()
    if len(lines) < 2 or not -len(lines) <= line < len(lines):
        return text
    del lines[line]
    return "\n".join(lines)


def distinct_share(texts: Sequence[str]) -> float:
    """Return the number of different explanations as a share of all."""
    return len(set(texts)) / len(texts)


def distinct_trigrams(texts: Sequence[str]) -> float:
    """Return the number of different sequences of three words as a share of all such sequences (0 where there are none)."""
    grams = [tuple(words[i : i + 3]) for words in (text.split() for text in texts) for i in range(len(words) - 2)]
    return len(set(grams)) / max(len(grams), 1)


def words_per_text(texts: Sequence[str]) -> float:
    """Return the mean number of words per explanation."""
    return sum(len(text.split()) for text in texts) / len(texts)
