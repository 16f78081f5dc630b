"""Grader error rates measured on labelled explanations, used to correct per-explanation rates."""

import graders
from audit.config import AuditConfig
from audit.stats.correction import GraderError
from graders.base import Verdict
from graders.labelled import SHIPPED
from graders.labelled.grading import GradedText, grade_labels
from graders.labelled.labels import read_labels
from nla.support.paths import user_path


def grader_error(config: AuditConfig) -> GraderError | None:
    """Measure an audit's grader on the test split of the labels its config names, or of the shipped labels.

    Without `labels` in the config, the result is None if the shipped labels are missing or if the grader asks a language model, because
    grading the labels would then cost money that nobody agreed to spend.

    Raises:
        DataError: the labels cannot be read.
    """
    if config.labels is None and not (SHIPPED.is_file() and graders.is_free(config.grader)):
        return None
    labels = read_labels(user_path(config.labels) if config.labels else SHIPPED)
    return error_of(grade_labels(labels, "test", config.grader))


def error_of(items: list[GradedText]) -> GraderError:
    """Counts of hits and false alarms among the texts that have both a reference and a verdict."""
    scored = [item for item in items if item.reference is not None and item.verdict is not None]
    yes = [item for item in scored if item.reference is Verdict.YES]
    other = [item for item in scored if item.reference is not Verdict.YES]
    return GraderError(_said_yes(yes), len(yes), _said_yes(other), len(other))


def _said_yes(items: list[GradedText]) -> int:
    return sum(item.verdict is Verdict.YES for item in items)
