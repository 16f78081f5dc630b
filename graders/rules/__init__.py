"""The rule grader: patterns and readings of evaluation awareness in English text. It is free, local, and the default grader."""

from graders.rules.grading import FREE, grader

__all__ = ["FREE", "grader"]
