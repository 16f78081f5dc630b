"""`audit report --compare`: a page that shows two audits side by side, with the numbers of `audit compare`."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from audit.analysis.compare import NO_DIFFERENCE, AuditComparison, ComparedCell
from audit.analysis.measure_words import MEASURE_WORDS, interval
from audit.analysis.result import AuditResult
from nla.support.figures import BLUE, drawable
from reports.drawing import INK, Drawn, bar, beside
from reports.output import COMPARISON, write_files
from reports.pages import TEMPLATES, hashed_script
from reports.words import detectable_text, p_text, rate_text


def build_comparison(
    comparison: AuditComparison, a: str, b: str, out: Path, results: tuple[AuditResult, AuditResult] | None = None
) -> Path:
    """Write `compare.html` into the folder of a report, or into a new folder, and return the path of the page.

    Args:
        comparison: the result of `audit.analysis.compare.compare`.
        a, b: names of the two audits.
        out: the folder; other files of a report in it are kept.
        results: the two audits' results, for a table of their measures.

    Raises:
        ConfigError: another process is writing a report into the folder.
        DataError: the folder holds files that no report wrote, or it cannot be written.
    """
    drawn = changes(comparison)
    script, digest = hashed_script("compare.js")
    page = TEMPLATES.get_template("compare.html.j2").render(
        a=a,
        b=b,
        differs=comparison.differs,
        cells=[
            (cell, rate_text(cell.a), rate_text(cell.b), change_text(cell), p_text(cell.p_holm), detectable_text(cell.detectable))
            for cell in comparison.cells
        ],
        areas=_areas(*results) if results else [],
        no_difference=NO_DIFFERENCE,
        figure=Markup(drawn.inline_svg()),
        caption=drawn.caption,
        script=Markup(script),
        script_hash=digest,
    )
    return write_files({COMPARISON: page.encode("utf-8", "backslashreplace")}, out, keep_others=True) / COMPARISON


def _areas(a: AuditResult, b: AuditResult) -> list[tuple[str, str, list[str]]]:
    return sorted(auroc_rows((a, b), a.measures.keys() & b.measures.keys()))


def auroc_rows(results: Sequence[AuditResult], tasks: Iterable[str]) -> list[tuple[str, str, list[str]]]:
    """Task, measure, and the AUROC of each audit, for the measures that at least one of them has taken."""
    rows = []
    for task in tasks:
        for name, words in MEASURE_WORDS.items():
            measured = [result.measures.get(task, {}).get(name) for result in results]
            if any(measured):
                rows.append((task, words, ["—" if each is None else interval(each.auroc) for each in measured]))
    return rows


def change_text(cell: ComparedCell) -> str:
    """`+12.0 points (95 % interval -3.0 to +27.0, n = 40)`, or the reason why there is no change to report."""
    change = cell.pairs.difference
    if change.estimate is None:
        return f"not measured ({change.reason})"
    points = f"{100 * change.estimate:+.1f} points"
    if change.low is None or change.high is None:
        return f"{points} (n = {cell.pairs.n})"
    return f"{points} (95 % interval {100 * change.low:+.1f} to {100 * change.high:+.1f}, n = {cell.pairs.n})"


def changes(comparison: AuditComparison) -> Drawn:
    """The figure of every cell's paired change with its interval."""
    cells = [cell for cell in comparison.cells if cell.pairs.difference.estimate is not None]
    labels = [f"{drawable(cell.task)}, {drawable(cell.condition)} (n = {cell.pairs.n})" for cell in cells]
    figure = Figure(figsize=(5.5 + beside(labels), 0.35 * max(len(cells), 1) + 1.2), layout="constrained")
    axes = figure.subplots()
    for row, cell in enumerate(cells):
        bar(axes, row, cell.pairs.difference, BLUE, "o")
    axes.axvline(0, color=INK, lw=0.8)
    axes.set_yticks(range(len(cells)), labels)
    axes.invert_yaxis()
    axes.set_xlabel("B minus A: transcripts flagged (points), 95 % interval over items")
    differences = "; ".join(f"{name}: A {a}, B {b}" for name, (a, b) in comparison.differs.items()) or NO_DIFFERENCE.rstrip(".")
    rows = [{"task": cell.task, "condition": cell.condition, "change": cell.pairs.difference.estimate, "n": cell.pairs.n} for cell in cells]
    note = f"Paired by task, condition, sample and epoch. {differences}."
    return Drawn("changes", "B against A", note, figure, pd.DataFrame(rows), "Right of 0: more transcripts are flagged in B.")
