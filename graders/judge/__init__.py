"""The judge: a language model that grades texts by the rubric. Each request costs what its provider charges."""

from graders.judge.grading import grader

__all__ = ["grader"]
