"""Explanations with labels (the files shipped here, and users' own), and what a grader says of them."""

from pathlib import Path

SHIPPED = Path(__file__).parent / "explanations.jsonl"
"""Labels of annotator kind `author`: written by this project, not by independent people."""
