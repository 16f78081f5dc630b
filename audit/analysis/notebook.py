"""A result as a small HTML table, for notebooks."""

from html import escape

from audit.analysis.measure_scores import MAIN
from audit.analysis.measure_words import SHORT_WORDS, interval, percent
from audit.analysis.result import AuditResult, Cell
from nla.support.display import visible


def html_table(result: AuditResult) -> str:
    """One row per task and condition: rates, and the AUROC of each measure against deployment traffic, all with 95 % intervals."""
    measures = [name for name in MAIN if any(name in of for of in result.measures.values())]
    headings = ["task", "condition", "n", "internal", "verbalised", *(f"AUROC {SHORT_WORDS[name]}" for name in measures)]
    rows = [
        [cell.task, cell.condition, str(cell.n), percent(cell.internal.scored), percent(cell.verbalized.scored)]
        + [_area(result, cell, name) for name in measures]
        for cell in result.cells
    ]
    head = "".join(f"<th>{heading}</th>" for heading in headings)
    body = "".join(f"<tr>{''.join(f'<td>{escape(visible(text, limit=80))}</td>' for text in row)}</tr>" for row in rows)
    model = escape(visible(result.config.get("model", ""), limit=80))
    words = f"Evaluation awareness of {model}: {result.n_transcripts} transcripts, 95 % intervals"
    return f"<table><caption>{words}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _area(result: AuditResult, cell: Cell, measure: str) -> str:
    found = result.measures_of(cell.condition).get(cell.task, {}).get(measure)
    return "—" if found is None or found.auroc.estimate is None else interval(found.auroc)
