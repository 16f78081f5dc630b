"""What is measured on the explanations' text alone, and the changed texts that show what a reconstruction rests on."""

import random
import re
from collections.abc import Sequence


def shuffled_words(text: str, seed: int) -> str:
    """Return the same words in a seeded random order: what a reconstruction keeps then does not depend on the wording."""
    words = text.split()
    random.Random(seed).shuffle(words)
    return " ".join(words)


def reworded(text: str) -> str:
    """Return the lines in reverse order and in lower case. A reader learns the same; what a reconstruction loses, it took from the form."""
    return "\n".join(reversed(text.lower().splitlines()))


def quote_accuracy(texts: Sequence[str], contexts: Sequence[str]) -> float:
    """Return the share of quoted words that appear in the context (ignoring case); NaN where nothing is quoted.

    Quoted are the words in quotation marks in an explanation's last line, or all words after its colon where there are no quotation
    marks.

    Args:
        texts: explanations.
        contexts: the document's text up to each explained token.
    """
    present = total = 0
    for text, context in zip(texts, contexts, strict=True):
        words_of_context = set(re.findall(r"\w+", context.lower()))
        last = text.splitlines()[-1]
        quotes = re.findall(r'"([^"]*)"', last) or [last.partition(": ")[2]]
        quoted = [word for quote in quotes for word in re.findall(r"\w+", quote.lower())]
        present, total = present + sum(word in words_of_context for word in quoted), total + len(quoted)
    return present / total if total else float("nan")


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
