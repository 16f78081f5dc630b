"""The rule grader: patterns and readings of evaluation awareness in English text. Free, local, and the default."""

from graders.rules.grading import FREE, grader

__all__ = ["FREE", "grader"]
