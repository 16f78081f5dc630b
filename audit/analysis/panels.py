"""`audit compare A B C --by model`: several audits, in one panel for each value of what distinguishes them.

Audits of different models are not pooled, and their items are not paired here: each is shown against its own deployment controls.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from audit.analysis.result import RESULT_FILE, AuditResult, read_result, result_json
from audit.analysis.tables import IDENTITY, STEER_UNIT
from audit.analysis.texts import encodable
from nla.support.display import visible
from nla.support.errors import ConfigError

BY = ("model", *(name for name in IDENTITY if name != "model"), STEER_UNIT)
"""What panels can be made by: `model` is the short name with the adapter, the others are columns of an audit's identity."""


@dataclass(frozen=True)
class Panel:
    """The audits that have one value in common."""

    value: str
    audits: list[tuple[str, AuditResult]]
    """Folder, as the user gave it, and result of each."""


def panels(folders: Sequence[Path], by: str) -> list[Panel]:
    """Read audits and sort them into panels, in the order in which the values first occur.

    Args:
        folders: folders of analysed audits.
        by: one of `BY`.

    Raises:
        ConfigError: `by` is none of these, or a folder is given twice.
        DataError: a folder has no `audit.json`, or one that cannot be read.
    """
    if by not in BY:
        raise ConfigError(f"--by {visible(by, limit=40)}: expected one of {', '.join(BY)}.")
    resolved = [folder.resolve() for folder in folders]
    twice = next((folder for folder, path in zip(folders, resolved, strict=True) if resolved.count(path) > 1), None)
    if twice is not None:
        raise ConfigError(f"{visible(twice)} is given twice: expected the folders of different audits.")
    by_value: dict[str, list[tuple[str, AuditResult]]] = {}
    for folder in folders:
        result = read_result(folder / RESULT_FILE)
        value = result.model_name if by == "model" else result.identity.get(by, "none")
        by_value.setdefault(value, []).append((str(folder), result))
    return [Panel(value, audits) for value, audits in by_value.items()]


def panels_json(shown: Sequence[Panel]) -> bytes:
    """The panels as JSON: a list of `value` and `audits`, each with its `folder` and its `result` as in `audit.json`."""
    content = [
        {
            "value": encodable(panel.value),
            "audits": [{"folder": encodable(folder), "result": json.loads(result_json(result))} for folder, result in panel.audits],
        }
        for panel in shown
    ]
    return json.dumps(content, indent=1, allow_nan=False).encode()


def differences(shown: Sequence[Panel], by: str) -> dict[str, str]:
    """What else distinguishes how each audit was measured, by its folder: `layer 20, dtype float32`; empty where nothing does."""
    identities = {folder: result.identity for panel in shown for folder, result in panel.audits}
    left_out = {by, "model", "adapter"} if by == "model" else {by}
    names = [name for name in BY if name not in left_out and len({identity.get(name, "none") for identity in identities.values()}) > 1]
    return {folder: ", ".join(f"{name} {identity.get(name, 'none')}" for name in names) for folder, identity in identities.items()}
