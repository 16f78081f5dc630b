"""The verdicts of a grader on labelled texts, beside the labels of their annotators."""

from collections.abc import Sequence
from dataclasses import dataclass

import anyio

from graders import build_grader
from graders.base import Grade, Verdict, with_checked_evidence
from graders.labelled.labels import LabelSet
from nla.support.errors import ConfigError


@dataclass(frozen=True)
class GradedText:
    """A labelled text with a grader's verdict on it."""

    id: str
    text: str
    rule: str
    """Rule of the rubric that decides, according to the file of labels."""
    style: str
    labels: dict[str, Verdict]
    """Annotator -> verdict."""
    reference: Verdict | None
    """What the grader is compared with; None where the annotators are tied."""
    verdict: Verdict | None
    """The grader's verdict; None where grading failed, which `reason` explains."""
    grader_rule: str
    """Rule of the rubric that the grader applied."""
    reason: str


def grade_labels(labels: LabelSet, split: str, grader: str) -> list[GradedText]:
    """Grade the labelled texts of a split.

    Args:
        labels: the labelled texts.
        split: `dev`, `test` or `all`.
        grader: name of a grader, with options if it takes any.

    Raises:
        ConfigError: the split has no text, or no grader has this name.
    """
    items = [item for item in labels.items if split in ("all", item.split)]
    if not items:
        raise ConfigError(f"{labels.path} has no text in split {split}; use --split all.")
    grades = grade_texts(grader, [(item.text, item.blurb) for item in items])
    return [
        GradedText(
            id=item.id,
            text=item.text,
            rule=item.rule,
            style=item.style,
            labels={label.annotator: label.verdict for label in item.labels},
            reference=labels.reference(item),
            verdict=grade.verdict,
            grader_rule=grade.rule,
            reason=grade.reason,
        )
        for item, grade in zip(items, grades, strict=True)
    ]


def grade_texts(grader: str, texts: Sequence[tuple[str, str]]) -> list[Grade]:
    """Grade (explanation, blurb) pairs, in order. A grade whose evidence is not in its text counts as failed.

    Each distinct pair is graded once.

    Raises:
        ConfigError: no grader has this name.
    """
    instance = build_grader(grader)

    async def grade(explanations: list[str], blurb: str) -> list[Grade]:
        return await instance.grade(explanations, kind="explanation", blurb=blurb)

    grades: dict[tuple[str, str], Grade] = {}
    for blurb in dict.fromkeys(blurb for _, blurb in texts):
        explanations = list(dict.fromkeys(text for text, text_blurb in texts if text_blurb == blurb))
        for text, text_grade in zip(explanations, anyio.run(grade, explanations, blurb), strict=True):
            grades[text, blurb] = with_checked_evidence(text_grade, text)
    return [grades[pair] for pair in texts]
