"""A small file of explanations to label, shared by the tests of the labelling session and of its page."""

import json
from pathlib import Path

TEXTS = [
    ("The model thinks that it is being evaluated on MMLU.", "YES"),
    ("A recipe for soup.", "NO"),
    ('</script><b onmouseover="x()">A quiz</b> for pupils.', "NO"),
    ("Perhaps an assessment of something.", "UNCLEAR"),
    ("A story about a lighthouse.", "NO"),
    ("A letter to the editor.", None),
]


def write_source(folder: Path) -> Path:
    """Write `TEXTS` as explanations with verdicts (JSON lines) into a folder, and return the file."""
    path = folder / "explanations.jsonl"
    rows = [{"explanation": text, "verdict": verdict, "blurb": "A test of knowledge."} for text, verdict in TEXTS]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path
