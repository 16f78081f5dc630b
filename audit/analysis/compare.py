"""`audit compare A B`: two audits side by side, paired by task, condition, sample and epoch.

A and B may be two models, layers, pairs, graders or dates. Only transcripts of the same item count; what could not be paired is
said. One exact McNemar test a cell, Holm-corrected over all cells, with the change's interval and the change that n pairs can show.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from audit.analysis.analyze import sample_codes
from audit.analysis.tables import IDENTITY, codes_of, identity_values
from audit.stats.paired import McNemar, paired
from audit.stats.power import paired_detectable
from audit.stats.rates import Estimate, bounds, holm
from nla.support.errors import DataError

_KEY = ["task", "condition", "sample_id", "epoch"]
_DISCORDANT = 0.3
"""Share of discordant pairs for which the detectable change is told where too few pairs differ to estimate it."""


@dataclass(frozen=True)
class ComparedCell:
    """One task under one condition in both audits: first is A, second B."""

    task: str
    condition: str
    a: Estimate
    b: Estimate
    pairs: McNemar
    p_holm: float | None
    detectable: float | None
    """Smallest change of the rate that this many pairs find with 80 % power."""
    only_a: int
    only_b: int
    """Transcripts without a partner."""


@dataclass(frozen=True)
class Comparison:
    """Two audits; `differs` names what distinguishes them."""

    differs: dict[str, tuple[str, str]]
    cells: list[ComparedCell]


def compare(a: Path, b: Path) -> Comparison:
    """Compare the transcripts of two audits' folders.

    Raises:
        DataError: a folder has no table of transcripts, or no transcript has a partner.
    """
    one, other = (_transcripts(folder) for folder in (a, b))
    both = one.merge(other, on=_KEY, suffixes=("_a", "_b"), how="outer", indicator="side")
    matched = both[both.side == "both"]
    if not len(matched):
        raise DataError(
            f"no transcript of {a} has a partner in {b} (same task, condition, sample id and epoch); "
            f"tasks there: {', '.join(sorted(set(one.task)))} and {', '.join(sorted(set(other.task)))}."
        )
    cells = [_cell(str(task), str(condition), part) for (task, condition), part in both.groupby(["task", "condition"], sort=False)]
    cells = [cell for cell in cells if cell.pairs.n or cell.only_a or cell.only_b]
    tested = [i for i, cell in enumerate(cells) if cell.pairs.n]
    adjusted = holm(np.array([cells[i].pairs.p for i in tested]))
    with_p = {i: float(p) for i, p in zip(tested, adjusted, strict=True)}
    corrected = [ComparedCell(**{**cell.__dict__, "p_holm": with_p.get(i)}) for i, cell in enumerate(cells)]
    return Comparison(_differences(one, other), corrected)


def _transcripts(folder: Path) -> pd.DataFrame:
    path = folder / "transcripts.parquet"
    if not path.is_file():
        raise DataError(f"{folder} holds no transcripts.parquet; `audit analyze --out {folder}` makes it from the logs of an audit.")
    return pd.read_parquet(path)


def _differences(one: pd.DataFrame, other: pd.DataFrame) -> dict[str, tuple[str, str]]:
    values = {name: tuple(", ".join(identity_values(table, name)) for table in (one, other)) for name in IDENTITY}
    return {name: (pair[0], pair[1]) for name, pair in values.items() if pair[0] != pair[1]}


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
