"""`audit report --compare A B`: a page that puts two audits side by side, with the numbers of `audit compare`."""

import base64
from pathlib import Path

from matplotlib.figure import Figure

from audit.analysis.compare import ComparedCell, Comparison, compare
from nla.support.errors import DataError
from nla.support.files import replacing
from reports.figures import BLUE, GREY, Drawn, shown
from reports.pages import TEMPLATES
from reports.words import p_text, rate_text


def build_comparison(a: Path, b: Path, out: Path) -> Path:
    """Write `compare.html` into a folder; returns the page.

    Raises:
        DataError: an audit has no table of transcripts, nothing pairs, or the output cannot be written.
    """
    found = compare(a, b)
    drawn = changes(found)
    page = TEMPLATES.get_template("compare.html.j2").render(
        a=str(a),
        b=str(b),
        differs=found.differs,
        cells=[(cell, rate_text(cell.a), rate_text(cell.b), change_text(cell), p_text(cell.p_holm)) for cell in found.cells],
        figure=base64.b64encode(drawn.encoded("svg")).decode(),
        caption=drawn.caption,
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
        with replacing(out / "compare.html") as scratch:
            scratch.write_text(page, encoding="utf-8")
    except OSError as ex:
        raise DataError(f"the comparison cannot be written to {out}: {ex.strerror or ex}.") from ex
    return out / "compare.html"


def change_text(cell: ComparedCell) -> str:
    """`+12 points (95 % interval -3 to +27, n = 40)`, or why there is none."""
    change = cell.pairs.difference
    if change.estimate is None:
        return f"not measured ({change.reason})"
    points = f"{100 * change.estimate:+.1f} points"
    if change.low is None or change.high is None:
        return f"{points} (n = {cell.pairs.n})"
    return f"{points} (95 % interval {100 * change.low:+.1f} to {100 * change.high:+.1f}, n = {cell.pairs.n})"


def changes(found: Comparison) -> Drawn:
    """Paired change of every cell with its interval."""
    cells = [cell for cell in found.cells if cell.pairs.difference.estimate is not None]
    figure = Figure(figsize=(7.5, 0.35 * max(len(cells), 1) + 1.2))
    axes = figure.subplots()
    for row, cell in enumerate(cells):
        change = cell.pairs.difference
        if change.low is not None and change.high is not None:
            axes.plot([100 * change.low, 100 * change.high], [row, row], color=BLUE, lw=2)
        axes.plot([100 * (change.estimate or 0)], [row], "o", color=BLUE)
    axes.axvline(0, color=GREY, lw=0.8)
    axes.set_yticks(range(len(cells)), [f"{shown(cell.task)}, {shown(cell.condition)} (n = {cell.pairs.n})" for cell in cells])
    axes.invert_yaxis()
    axes.set_xlabel("B minus A: transcripts flagged (points), 95 % interval over items")
    told = "; ".join(f"{name}: A {a}, B {b}" for name, (a, b) in found.differs.items()) or "A and B were measured in the same way"
    return Drawn("changes", "B against A", f"Paired by task, condition, sample and epoch. {told}.", figure)
