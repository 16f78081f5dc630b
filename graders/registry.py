"""Inspect's entry point for scorers: `inspect score LOG --scorer graders/nla_awareness`. Imports without torch."""

from graders.awareness import nla_awareness
from graders.verbalized import verbalized_awareness

__all__ = ["nla_awareness", "verbalized_awareness"]
