"""The classifier: the rules, and a small trained encoder for what the rules miss; with its weights (`mpnet/`) and its training."""

from graders.classifier.grading import FREE, grader

__all__ = ["FREE", "grader"]
