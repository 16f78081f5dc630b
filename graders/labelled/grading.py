"""What a grader says of labelled texts, beside their labels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import anyio

from graders import build_grader
from graders.base import Grade, Verdict
from graders.labelled.labels import LabelSet
from nla.support.errors import ConfigError


@dataclass(frozen=True)
class Judged:
    """A labelled text beside a grader's verdict on it."""

    id: str
    text: str
    rule: str
    style: str
    labels: dict[str, Verdict]
    """Annotator to verdict."""
    reference: Verdict | None
    verdict: Verdict | None
    """What the grader said; None, with a reason, where it could not."""
    grader_rule: str
    reason: str


def judge(labels: LabelSet, split: str, grader: str) -> list[Judged]:
    """Grade the texts of a split (`dev`, `test` or `all`).

    Raises:
        ConfigError: the split has no text, or there is no such grader.
    """
    items = [item for item in labels.items if split in ("all", item.split)]
    if not items:
        raise ConfigError(f"no text of {labels.path} is in split {split}; use --split all.")
    grades = grade_texts(grader, [(item.text, item.blurb) for item in items])
    return [
        Judged(
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
    """Grades of (explanation, blurb) pairs, in order; a verdict whose evidence is not in the text is none."""
    judge = build_grader(grader)

    async def grade(chosen: list[str], blurb: str) -> list[Grade]:
        return await judge.grade(chosen, kind="explanation", blurb=blurb)

    grades: dict[tuple[str, str], Grade] = {}
    for blurb in dict.fromkeys(blurb for _, blurb in texts):
        chosen = list(dict.fromkeys(text for text, own in texts if own == blurb))
        for text, found in zip(chosen, anyio.run(grade, chosen, blurb), strict=True):
            quoted = found.evidence in text
            grades[text, blurb] = found if quoted else replace(found, verdict=None, reason="evidence is not in the text")
    return [grades[key] for key in texts]
