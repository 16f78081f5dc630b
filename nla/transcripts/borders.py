"""Where tokens begin and end in the text they decode to, for tokenizers in which one character can be several tokens.

The text of the first k tokens need not be a beginning of the whole text: while a character is incomplete, byte-level tokenizers write one
replacement character in its place, and tokenizers with byte fallback one for each byte of the whole run.
"""

from collections.abc import Callable, Sequence
from functools import cache, lru_cache

from transformers import PreTrainedTokenizerBase

from nla.models.chat_template import THINK_CLOSE, THINK_OPEN

_LONGEST_CHARACTER = 4
"""Bytes of a character in UTF-8, thus the most tokens that one character can be."""


def decoded(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], *, skip_special: bool) -> str:
    """Return the text of token ids, with or without special tokens. The tags around thinking stay even where they are special tokens."""
    special = _special_without_tags(tokenizer) if skip_special else None
    if special is None:
        return str(tokenizer.decode(list(ids), skip_special_tokens=skip_special))
    return str(tokenizer.decode([token for token in ids if token not in special], skip_special_tokens=False))


@lru_cache(maxsize=16)
def _special_without_tags(tokenizer: PreTrainedTokenizerBase) -> frozenset[int] | None:
    """Return the ids of the special tokens other than the tags around thinking; None if those tags are not special tokens."""
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special} | set(tokenizer.all_special_ids)
    tags = set(map(tokenizer.convert_tokens_to_ids, (THINK_OPEN, THINK_CLOSE)))
    return frozenset(special - tags) if special & tags - {tokenizer.unk_token_id} else None


def tokens_within(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], end: int, *, skip_special: bool = False) -> int:
    """Return how many leading tokens lie wholly before character `end` of the text.

    A token that holds part of a character at the border is not within. Tokens without text at the border are not either.
    """
    text = decoded(tokenizer, ids, skip_special=skip_special)
    if end >= len(text):
        return len(ids)

    @cache
    def common(count: int) -> int:
        return _common_length(decoded(tokenizer, ids[:count], skip_special=skip_special), text)

    def complete(count: int) -> int:
        """How many characters of the text the first `count` tokens complete (one of the last few counts ends a character)."""
        return max(common(least) for least in range(max(count - _LONGEST_CHARACTER + 1, 0), count + 1))

    upto = _last(len(ids), lambda count: complete(count) <= end)
    reached = complete(upto)
    return 0 if reached == 0 else 1 + _last(upto, lambda count: complete(count) < reached)


def _common_length(beginning: str, text: str) -> int:
    if text.startswith(beginning):
        return len(beginning)
    return next(i for i, (left, right) in enumerate(zip(f"{beginning}\0", f"{text}\1", strict=False)) if left != right)


def _last(high: int, holds: Callable[[int], bool]) -> int:
    """Return the largest count up to `high` for which a condition holds that, once false, stays false (it holds for 0)."""
    low = 0
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low


def contains_stop(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], stops: Sequence[str]) -> bool:
    """Return whether one of the stop sequences is in the text of the last tokens.

    Only as many tokens are decoded as the longest sequence can have, since a token with text holds at least a byte. The first of them may
    lie inside a character, so several beginnings are tried.
    """
    special = _special_without_tags(tokenizer) or frozenset(tokenizer.all_special_ids)
    with_text = [token for token in ids if token not in special]
    tail = max(len(stop.encode()) for stop in stops) + _LONGEST_CHARACTER
    for more in range(_LONGEST_CHARACTER):
        text = decoded(tokenizer, with_text[-tail - more :], skip_special=True)
        if any(stop in text for stop in stops):
            return True
    return False
