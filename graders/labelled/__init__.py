"""Explanations with labels (the files shipped here, and files of users), and the verdicts of a grader on them.

Reading files of labels and grading labelled texts belong here. Statistics of agreement belong in `audit.stats`, and the
page on which people label belongs in `reports`.
"""

from pathlib import Path

SHIPPED = Path(__file__).parent / "explanations.jsonl"
"""Labels of annotator kind `author`: written by this project, not by independent people."""
