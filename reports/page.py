"""The page of a report: what its template shows, in the order in which a reader needs it."""

import math
from dataclasses import dataclass

from markupsafe import Markup

from audit.analysis.measure_words import interval
from audit.analysis.result import AuditResult, Cell
from audit.analysis.stored import StoredAudit
from audit.config import BASE
from audit.stats.rates import Estimate
from audit.terminal import against_floor, percent
from nla.support.display import visible
from reports.csv_text import safe_csv
from reports.drawing import Drawn
from reports.measure_figures import MEASURE_WORDS
from reports.pages import TEMPLATES, hashed_script
from reports.transcript_data import data_block, transcript_data
from reports.verdicts import instrument_panel, verdicts
from reports.words import model_name, rate_text, summary

_SHOWN_ROWS = 200
"""Rows of a figure's table on the page; the report's `tables` folder and the download have them all."""


@dataclass(frozen=True)
class PlotCell:
    """A cell of the table of benchmarks: a number with its interval as text, and as positions from 0 to 100 of a small plot."""

    text: str
    value: float | None
    low: float | None = None
    high: float | None = None
    marks: tuple[float, ...] = ()
    """Positions of dotted lines: chance for an AUROC, floor and 5 % for a rate."""


def page(audit: StoredAudit, drawn: list[Drawn]) -> str:
    """The self-contained page."""
    result = audit.result
    script, digest = hashed_script("report.js")
    index, blocks = transcript_data(audit)
    return TEMPLATES.get_template("index.html.j2").render(
        result=result,
        model=model_name(result),
        identity=_identity(result),
        verdicts=verdicts(result),
        panel=instrument_panel(result),
        summary=summary(result),
        headings=_headings(result),
        benchmarks=[(cell.task, cell.role, _benchmark_row(cell, result)) for cell in result.cells if cell.condition == BASE],
        cells=[
            (cell, *map(rate_text, (cell.internal.scored, cell.token_rate, cell.verbalized.scored)), against_floor(cell, result))
            for cell in result.cells
        ],
        figures=[_Figure.of(figure) for figure in drawn],
        script=Markup(script),
        script_hash=digest,
        index=Markup(data_block(index)),
        blocks=blocks,
        has_texts=len(audit.conversations) > 0,
    )


@dataclass(frozen=True)
class _Figure:
    name: str
    title: str
    caption: str
    how_to_read: str
    svg: Markup
    columns: list[str]
    rows: list[list[str]]
    n_rows: int
    csv: Markup

    @classmethod
    def of(cls, drawn: Drawn) -> "_Figure":
        rows = [[_shown(value) for value in row] for row in drawn.table.head(_SHOWN_ROWS).itertuples(index=False)]
        csv = Markup(data_block(safe_csv(drawn.table)))
        columns = [str(column) for column in drawn.table]
        return cls(
            drawn.name, drawn.title, drawn.caption, drawn.how_to_read, Markup(drawn.inline_svg()), columns, rows, len(drawn.table), csv
        )


def _shown(value: object) -> str:
    if isinstance(value, float):
        return "—" if math.isnan(value) else f"{value:.3f}".rstrip("0").rstrip(".")
    return "—" if value is None else visible(value, limit=120)


def _identity(result: AuditResult) -> list[tuple[str, str]]:
    """What was measured and with what, in readers' words; the model's folder is left to `audit.json`."""
    words = {
        "adapter": "adapter",
        "layer": "layer (block K)",
        "verbalizer": "verbalizer",
        "nla": "trained pair",
        "grader": "grader",
        "tokens_wanted": "tokens per transcript",
        "dtype": "precision",
        "steer_unit": "steering unit",
    }
    rows = [(label, result.identity[name]) for name, label in words.items() if result.identity.get(name, "none") != "none"]
    return [*rows, ("transcripts", str(result.n_transcripts)), ("analysed", result.created)]


def _headings(result: AuditResult) -> list[str]:
    measures = [name for name in MEASURE_WORDS if any(name in of for of in result.measures.values())]
    rates = ["internal", "share of tokens"] if any(cell.internal.scored.n for cell in result.cells) else []
    return [*rates, *(MEASURE_WORDS[name] for name in measures if name != "verbalized"), "says so", "reading"]


def _benchmark_row(cell: Cell, result: AuditResult) -> list[PlotCell]:
    """The cells of one benchmark or deployment control, in the order of `_headings`."""
    measures = result.measures.get(cell.task, {})
    floor = result.floor.pooled.estimate if result.floor else None
    marks = tuple(100 * mark for mark in (0.05, floor) if mark is not None)
    row = []
    for heading in _headings(result):
        name = next((name for name, words in MEASURE_WORDS.items() if words == heading and name != "verbalized"), None)
        if name is not None:
            row.append(_area(measures[name].auroc if name in measures else None))
        elif heading == "reading":
            row.append(PlotCell(_reading(cell, result), None))
        else:
            rate = {"internal": cell.internal.scored, "share of tokens": cell.token_rate, "says so": cell.verbalized.scored}[heading]
            row.append(_scaled(percent(rate), rate, marks))
    return row


def _area(auroc: Estimate | None) -> PlotCell:
    return PlotCell("—", None) if auroc is None or auroc.estimate is None else _scaled(interval(auroc), auroc, (50.0,))


def _scaled(text: str, estimate: Estimate, marks: tuple[float, ...]) -> PlotCell:
    low, middle, high = (None if end is None else round(100 * end, 2) for end in (estimate.low, estimate.estimate, estimate.high))
    return PlotCell(text, middle, low, high, marks if middle is not None else ())


def _reading(cell: Cell, result: AuditResult) -> str:
    verdict = next((verdict for verdict in verdicts(result) if verdict.task == cell.task), None)
    return verdict.headline if verdict is not None else cell.role
