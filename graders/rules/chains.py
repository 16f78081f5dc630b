r"""Patterns with wide gaps, matched in time that is linear in the text.

A template such as `A<GAP>B<GAP>C` (three expressions, each at most 70 characters after the one before) is expensive for `re`: it tries C
after every B that follows every A, again and again at the same places. A text that repeats words of A and B made one explanation take
five seconds. Here each place of C is computed once, then each place of B that reaches a C, then each place of A that reaches such a B.

How a place is passed on: the folded text has no upper-case letters, so the first character of every reachable C is put in upper case,
and `B` is searched with `B.{0,70}?[A-Z]`, ignoring case in B. Only the starts are found in this way. The match itself comes from the
whole pattern, applied at a start, so results are those of the pattern alone.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

GAP = r"\b.{0,70}?\b"
"""What `<GAP>` in a template stands for."""
_WIDEST = 72
"""Characters that may lie before a marked place: 70, and up to two marks of punctuation with which an expression may begin."""
_OTHER = "\uff21"
"""Upper case of a character that has no upper-case ASCII letter. It is a letter itself, and folding leaves none in a text."""
CROWD = 12
"""Occurrences of an expression in one sentence from which on places are computed; with fewer, the whole pattern alone is faster."""
_MARK = f"[A-Z{_OTHER}]"


@dataclass(frozen=True)
class Chain:
    """One template with gaps, as the expressions between them."""

    last: re.Pattern[str]
    """The last expression, found by a lookahead so that overlapping places are all found."""
    earlier: tuple[re.Pattern[str], ...]
    """The other expressions, from the last but one to the first, each a lookahead up to a marked place."""

    def starts(self, text: str) -> list[int]:
        """Return every position of a folded text at which the template may match, in order."""
        places = [match.start() for match in self.last.finditer(text)]
        for expression in self.earlier:
            if not places:
                return []
            places = [match.start() for match in expression.finditer(_marked(text, places))]
        return places


@dataclass(frozen=True)
class ChainedPattern:
    """Alternatives of which some are chains. It finds what its whole pattern finds, in less time."""

    whole: re.Pattern[str]
    plain: tuple[re.Pattern[str], ...]
    chains: tuple[Chain, ...]
    crowd: re.Pattern[str]
    """The expression before the last gap of the first chain, of which only unusual texts have many."""

    def finditer(self, text: str) -> Iterator[re.Match[str]]:
        """Return the matches that `whole.finditer(text)` gives, from left to right."""
        crowd = islice(self.crowd.finditer(text), CROWD)
        return self._by_starts(text) if sum(1 for _ in crowd) == CROWD else self.whole.finditer(text)

    def _by_starts(self, text: str) -> Iterator[re.Match[str]]:
        starts = sorted({start for chain in self.chains for start in chain.starts(text)})
        position, plain = 0, [-1] * len(self.plain)
        while position <= len(text):
            for i, pattern in enumerate(self.plain):
                if plain[i] < position:
                    match = pattern.search(text, position)
                    plain[i] = match.start() if match else len(text) + 1
            nearest = bisect_left(starts, position)
            start = min([*starts[nearest : nearest + 1], *plain], default=len(text) + 1)
            if start > len(text):
                return
            match = self.whole.match(text, start)
            if match:
                yield match
            position = max(match.end() if match else 0, start + 1)


def chained(whole: re.Pattern[str], plain: Sequence[re.Pattern[str]], chains: Sequence[Sequence[str]]) -> ChainedPattern:
    """Build a pattern from its compiled whole, its alternatives without gaps, and the filled expressions of each one with gaps."""
    crowd = re.compile(chains[0][-2], re.DOTALL)
    return ChainedPattern(whole, tuple(plain), tuple(_chain(expressions) for expressions in chains), crowd)


def _chain(expressions: Sequence[str]) -> Chain:
    *earlier, last = expressions
    gap = rf"\b.{{0,{_WIDEST}}}?{_MARK}"
    compiled = [re.compile(rf"(?=(?i:{expression}){gap})", re.DOTALL) for expression in reversed(earlier)]
    return Chain(re.compile(rf"(?={last})", re.DOTALL), tuple(compiled))


def _marked(text: str, places: Sequence[int]) -> str:
    """Return the text with the first word character from each place on in upper case."""
    characters = list(text)
    for place in places:
        position = place
        while position < len(text) and not (text[position].isalnum() or text[position] == "_"):
            position += 1
        if position < len(text):
            letter = text[position]
            characters[position] = letter.upper() if "a" <= letter <= "z" else _OTHER
    return "".join(characters)
