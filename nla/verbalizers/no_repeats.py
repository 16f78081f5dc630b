"""Keep an AV from listing a word or a candidate for the next token twice in one line ("Topic: click, click, click").

A sidecar says in how many of an explanation's first lines this holds (`lines_without_repeats`; 0 in released AVs, whose lines are
sentences). A guard follows one reply as it is written and names the token ids that may not come next. Words of fewer than four letters
may come again, and so may everything in later lines, which quote the text.
"""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

SHORTEST = 4
"""Letters of the shortest word that may not come twice."""
LINES_ARGUMENT, OPENING_ARGUMENT = "lines_without_repeats", "opening_tag"
"""Keys under which an engine's request carries the rule: in how many first lines nothing may come twice, and the tag before them."""
_CLOSINGS = ('"', '".', '",', '".\n', '"\n')
"""Texts of single tokens that may end a quoted candidate."""
_BEFORE = "a"
"""Text that a token is decoded after, because some tokenizers drop the space of a first token."""


class Spellings:
    """Texts of token ids, and the ids that begin or make up a text. Each is looked up once."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._before = tokenizer.encode(_BEFORE, add_special_tokens=False)
        self._n_before = len(self._decode(self._before))
        self._texts: dict[int, str] = {}
        self._whole: dict[str, frozenset[int]] = {}
        self._words: dict[str, frozenset[int]] = {}

    def text(self, token: int) -> str:
        """Return a token's text, with the space that it begins with."""
        if token not in self._texts:
            self._texts[token] = self._decode([*self._before, token])[self._n_before :]
        return self._texts[token]

    def whole(self, text: str) -> frozenset[int]:
        """Return the id that is exactly this text; nothing where it takes several tokens."""
        if text not in self._whole:
            ids = self._tokenizer.encode(text, add_special_tokens=False)
            self._whole[text] = frozenset(ids) if len(ids) == 1 and self.text(ids[0]) == text else frozenset()
        return self._whole[text]

    def word(self, word: str) -> frozenset[int]:
        """Return the ids that are exactly this word, in lower case or capitalised, with and without a space before it."""
        if word not in self._words:
            forms = [f"{space}{form}" for form in (word.lower(), word.capitalize(), word.upper()) for space in (" ", "")]
            self._words[word] = frozenset().union(*map(self.whole, forms))
        return self._words[word]

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, clean_up_tokenization_spaces=False))


class RepeatGuard:
    """Follows one reply and names the tokens that would repeat an item in the current line.

    Args:
        spellings: of the AV's tokenizer.
        opening: the tag that the explanation begins after.
        lines: number of first lines in which nothing may come twice; blank lines do not count.
    """

    def __init__(self, spellings: Spellings, opening: str, lines: int) -> None:
        self._spellings = spellings
        self._opening = opening
        self._lines = lines
        self._n_read = 0
        self._tag = ""
        self._line = -1
        self._new_line()

    def __call__(self, ids: Sequence[int]) -> frozenset[int]:
        """Return the ids that may not come next.

        Args:
            ids: the reply so far; each call's ids continue those of the call before.
        """
        for token in ids[self._n_read :]:
            self._read(token, self._spellings.text(token))
        self._n_read = len(ids)
        if not 0 <= self._line < self._lines:
            return frozenset()
        if self._quote is not None:
            quoted = self._quote
            rests = [candidate[len(quoted) :] for candidate in self._candidates if candidate.startswith(quoted)]
            endings = [rest + closing for rest in rests for closing in (*_CLOSINGS, "") if rest + closing]
            return frozenset().union(*map(self._spellings.whole, endings))
        if len(self._word) < SHORTEST:
            return frozenset(self._banned)
        # A word that is still being written may be over: then only a token that begins a new word would repeat it.
        again = self._spellings.word(self._word.lower())
        return frozenset(self._banned) | {token for token in again if self._spellings.text(token)[:1].isspace()}

    def _new_line(self) -> None:
        self._blank = True
        self._word, self._word_start = "", -1
        self._quote: str | None = None
        self._candidates: list[str] = []
        self._banned: set[int] = set()

    def _read(self, token: int, text: str) -> None:
        if self._line < 0:
            self._tag += text
            if self._opening not in self._tag:
                return
            text, self._line = self._tag.partition(self._opening)[2], 0
        for index, char in enumerate(text):
            opens = text[:1].isspace() and not text[:index].strip()
            self._read_char(char, token if opens else -1)

    def _read_char(self, char: str, token: int) -> None:
        """Go on by one character; `token` is the id that begins with a space and this character, so only ever begins a word, or -1."""
        if self._quote is None and (char.isalnum() or char == "_"):
            if not self._word:
                self._word_start = token
            self._word += char
            self._blank = False
            return
        self._end_word()
        if char == "\n":
            self._line += not self._blank
            self._new_line()
        elif char == '"' and self._quote is None:
            self._quote, self._blank = "", False
        elif char == '"':
            self._candidates.append(self._quote or "")
            self._quote = None
        elif self._quote is not None:
            self._quote += char

    def _end_word(self) -> None:
        if len(self._word) >= SHORTEST:
            self._banned |= self._spellings.word(self._word.lower()) | ({self._word_start} - {-1})
        self._word, self._word_start = "", -1


def repeats(spellings: Spellings, opening: str, lines: int, ids: Sequence[int]) -> bool:
    """Return whether a reply holds a token that a guard would have forbidden. The arguments are those of `RepeatGuard`."""
    guard = RepeatGuard(spellings, opening, lines)
    return any(token in guard(ids[:place]) for place, token in enumerate(ids))
