"""Multiple-choice items whose options are put into a seeded order."""

from collections.abc import Sequence
from typing import Any

from inspect_ai.dataset import Sample

from nla.support.display import visible
from nla.support.rows import content_id
from nla.support.seeds import seeded_generator
from tasks._fields import DataRow

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""Letters of the options."""


def check_choices(row: DataRow, choices: Sequence[str], answer: int) -> None:
    """Check that there are 2 to 26 options and that the answer is one of them.

    Raises:
        DataError: it is not so.
    """
    if not 2 <= len(choices) <= len(LETTERS):
        raise row.problem(f"found {len(choices)} options, expected 2 to {len(LETTERS)}")
    if not 0 <= answer < len(choices):
        raise row.problem(f"the answer is not among the {len(choices)} options, expected one that is")


def shuffled_choices(row: DataRow, question: str, right: str, wrong: Sequence[str], **metadata: Any) -> Sample:
    """A multiple-choice sample whose options are in an order seeded by task and question.

    Raises:
        DataError: fewer than 2 or more than 26 options, or two that are equal.
    """
    options = [right, *wrong]
    check_choices(row, options, 0)
    if len(set(options)) < len(options):
        repeated = next(option for option in options if options.count(option) > 1)
        raise row.problem(f"the option '{visible(repeated, limit=60)}' occurs twice, expected different options")
    order = [int(i) for i in seeded_generator(row.task, question).permutation(len(options))]
    return Sample(
        id=content_id(question, sorted(options)),
        input=question,
        choices=[options[i] for i in order],
        target=LETTERS[order.index(0)],
        metadata={"id_from_content": True, **metadata},
    )
