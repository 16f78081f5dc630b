"""`audit compare A B`: two audits, paired by task, condition, sample and epoch.

A and B may differ in model, layer, pair, grader or date. Only transcripts of the same item are compared; those without a partner are
counted. Every cell gets one exact McNemar test, Holm-corrected over all cells, with the interval of the change and the smallest change that
its number of pairs can detect.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from audit.analysis.samples import sample_codes
from audit.analysis.stored import read_transcripts
from audit.analysis.tables import IDENTITY, STEER_UNIT, codes_of, identity_values, steering_unit
from audit.stats.paired import McNemar, paired
from audit.stats.power import paired_detectable
from audit.stats.rates import Estimate, bounds, holm
from nla.support.display import visible
from nla.support.errors import DataError

_KEY = ["task", "condition", "sample_id", "epoch"]
NO_DIFFERENCE = "A and B do not differ in model, adapter, layer, verbalizer, pair, grader, tokens, precision or steering unit."
"""What is said where `AuditComparison.differs` is empty; other settings are not compared."""
_DISCORDANT = 0.3
"""Least share of discordant pairs assumed for the detectable change, because a few pairs may show none by chance."""


@dataclass(frozen=True)
class ComparedCell:
    """One task under one condition in both audits: A is first, B second."""

    task: str
    condition: str
    a: Estimate
    b: Estimate
    pairs: McNemar
    p_holm: float | None
    detectable: float | None
    """Smallest change of the rate that this number of pairs detects with 80 % power; None if it can detect no change."""
    only_a: int
    only_b: int
    """Transcripts without a partner."""


@dataclass(frozen=True)
class AuditComparison:
    """Two audits compared cell by cell, steered cells only if their strengths have the same unit.

    `differs` names what distinguishes how they were measured, as (A, B).
    """

    differs: dict[str, tuple[str, str]]
    cells: list[ComparedCell]


def compare(a: Path, b: Path) -> AuditComparison:
    """Compare the transcripts in two audits' folders.

    Raises:
        DataError: a folder has no table of transcripts, its files belong to different analyses, or no transcript has a partner.
    """
    first, second = read_transcripts(a), read_transcripts(b)
    differences = _differences(first, second)
    if STEER_UNIT in differences:  # equal strengths of different units are different steerings
        first, second = (table[table.direction.fillna("") == ""] for table in (first, second))
    both = first.merge(second, on=_KEY, suffixes=("_a", "_b"), how="outer", indicator="side")
    if not (both.side == "both").any():
        raise DataError(
            f"No transcript of {a} has a partner in {b} (same task, condition, sample id and epoch); "
            f"their tasks are {_tasks(first)} and {_tasks(second)}."
        )
    cells = [_cell(str(task), str(condition), part) for (task, condition), part in both.groupby(["task", "condition"], sort=False)]
    cells = [cell for cell in cells if cell.pairs.n or cell.only_a or cell.only_b]
    tested = [i for i, cell in enumerate(cells) if cell.pairs.n]
    adjusted = holm(np.array([cells[i].pairs.p for i in tested]))
    p_values = {i: float(p) for i, p in zip(tested, adjusted, strict=True)}
    return AuditComparison(differences, [replace(cell, p_holm=p_values.get(i)) for i, cell in enumerate(cells)])


def _tasks(transcripts: pd.DataFrame) -> str:
    return visible(", ".join(sorted(set(transcripts.task.astype(str)))), limit=200)


def _differences(first: pd.DataFrame, second: pd.DataFrame) -> dict[str, tuple[str, str]]:
    values = {name: [", ".join(identity_values(table, name)) for table in (first, second)] for name in IDENTITY}
    units = steering_unit(first), steering_unit(second)
    if None not in units:
        values[STEER_UNIT] = [str(unit) for unit in units]
    return {name: (a, b) for name, (a, b) in values.items() if a != b}


def _cell(task: str, condition: str, part: pd.DataFrame) -> ComparedCell:
    matched = part[part.side == "both"]
    first, second, items = codes_of(matched.internal_a), codes_of(matched.internal_b), sample_codes(matched)
    pairs = paired(first, second, items)
    share = (pairs.only_first + pairs.only_second) / pairs.n if pairs.n else 0.0
    return ComparedCell(
        task,
        condition,
        bounds(first, items).scored,
        bounds(second, items).scored,
        pairs,
        None,
        paired_detectable(pairs.n, max(share, _DISCORDANT)) if pairs.n else None,
        int((part.side == "left_only").sum()),
        int((part.side == "right_only").sum()),
    )
