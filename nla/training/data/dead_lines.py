"""A check of the teacher's explanations: a line that is the same in nearly all of them teaches an AV nothing but that line."""

from collections import Counter
from collections.abc import Sequence

from nla.support.display import visible
from nla.support.errors import DataError

FEWEST = 200
"""Explanations below which nothing is refused: a handful may well share a line."""
_LARGEST_SHARE = 0.9


def refuse_dead_lines(explanations: Sequence[str]) -> None:
    """Refuse explanations whose n-th line, for some n, is the same in more than nine of ten.

    Raises:
        DataError: there is such a line.
    """
    if len(explanations) < FEWEST:
        return
    rows = [explanation.splitlines() for explanation in explanations]
    for number in range(max(map(len, rows))):
        line, count = Counter(row[number] for row in rows if len(row) > number).most_common(1)[0]
        if count > _LARGEST_SHARE * len(rows):
            raise DataError(
                f"line {number + 1} of the teacher's explanations is dead: '{visible(line)}' in {count} of {len(rows)}. An AV would learn "
                "to write it whatever it reads. Use more kinds of documents, other situations, or another teacher."
            )
