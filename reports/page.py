"""The page of a report: what its template shows, in the order in which a reader needs it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

from audit.analysis.measure_words import MEASURE_WORDS, interval, percent
from audit.analysis.result import AuditResult
from audit.analysis.stored import StoredAudit
from audit.config import BASE
from audit.stats.rates import Estimate
from audit.terminal import measure_lines
from nla.support.display import visible
from reports.csv_text import safe_csv
from reports.drawing import Drawn
from reports.pages import TEMPLATES, hashed_script
from reports.transcript_data import data_block, transcript_data
from reports.verdicts import Verdict, instrument_panel, verdicts
from reports.words import cell_table, explained_rates, summary, unit_text

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
    shown = verdicts(result)
    return TEMPLATES.get_template("index.html.j2").render(
        result=result,
        model=result.model_name,
        identity=_identity(result),
        verdicts=shown,
        panel=instrument_panel(result),
        summary=[*summary(result), *measure_lines(result, MEASURE_WORDS)],
        headings=_headings(result),
        benchmarks=_benchmarks(result, shown),
        cells=cell_table(result),
        figures=[_Figure.of(figure) for figure in drawn],
        script=Markup(script),
        script_hash=digest,
        index=Markup(data_block(index)),
        blocks=blocks,
        has_texts=len(audit.conversations) > 0,
    )


class _Figure(NamedTuple):
    """A figure, and what the page shows of it beside its texts."""

    drawn: Drawn
    svg: Markup
    rows: list[list[str]]
    """The first rows of its table."""
    csv: Markup

    @classmethod
    def of(cls, drawn: Drawn) -> "_Figure":
        rows = [[_shown(value) for value in row] for row in drawn.table.head(_SHOWN_ROWS).itertuples(index=False)]
        return cls(drawn, Markup(drawn.inline_svg()), rows, Markup(data_block(safe_csv(drawn.table))))


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
    shown = {**result.identity, "steer_unit": unit_text(result)} if "steer_unit" in result.identity else result.identity
    rows = [(label, shown[name]) for name, label in words.items() if shown.get(name, "none") != "none"]
    return [*rows, ("transcripts", str(result.n_transcripts)), ("analysed", result.created)]


def _measures(result: AuditResult) -> list[str]:
    """The measures that have a column of AUROCs."""
    return [name for name in MEASURE_WORDS if name != "verbalized" and any(name in of for of in result.measures.values())]


def _headings(result: AuditResult) -> list[str]:
    return [*explained_rates(result), *(MEASURE_WORDS[name] for name in _measures(result)), "verbalised", "verdict"]


def _benchmarks(result: AuditResult, shown: Sequence[Verdict]) -> list[tuple[str, str, list[PlotCell]]]:
    """Task, role and cells (in the order of `_headings`) of each benchmark and deployment control."""
    floor = result.floor.pooled.estimate if result.floor else None
    marks = tuple(100 * mark for mark in (0.05, floor) if mark is not None)
    headlines = {verdict.task: verdict.headline for verdict in shown}
    rates, measures = explained_rates(result).values(), _measures(result)
    rows = []
    for cell in (cell for cell in result.cells if cell.condition == BASE):
        of_task = result.measures.get(cell.task, {})
        row = [_rate(rate(cell), marks) for rate in rates]
        row += [_area(of_task[name].auroc if name in of_task else None) for name in measures]
        row += [_rate(cell.verbalized.scored, marks), PlotCell(headlines.get(cell.task, cell.role), None)]
        rows.append((cell.task, cell.role, row))
    return rows


def _rate(rate: Estimate, marks: tuple[float, ...]) -> PlotCell:
    return _scaled(percent(rate), rate, marks)


def _area(auroc: Estimate | None) -> PlotCell:
    return PlotCell("—", None) if auroc is None or auroc.estimate is None else _scaled(interval(auroc), auroc, (50.0,))


def _scaled(text: str, estimate: Estimate, marks: tuple[float, ...]) -> PlotCell:
    low, middle, high = (None if end is None else round(100 * end, 2) for end in (estimate.low, estimate.estimate, estimate.high))
    return PlotCell(text, middle, low, high, marks if middle is not None else ())
