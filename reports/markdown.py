"""The report as Markdown, for people who read it in a terminal, an issue or a repository."""

from collections.abc import Sequence
from functools import partial

from audit.analysis.measure_scores import SINGLE
from audit.analysis.measure_words import interval
from audit.analysis.result import AuditResult
from audit.terminal import measure_lines
from graders.markdown import plain_cell
from reports.drawing import Drawn
from reports.verdicts import instrument_panel, verdicts
from reports.words import cell_table, rate_text, summary

_plain = partial(plain_cell, limit=None)


def markdown(result: AuditResult, drawn: Sequence[Drawn]) -> str:
    """The report as Markdown, with the figures as files."""
    headings, cells = cell_table(result)
    head = [f"| {' | '.join(headings)} |", f"|{'---|' * len(headings)}"]
    rows = [f"| {' | '.join(map(_plain, row))} |" for row in cells]
    figures = [
        f"## {figure.title}\n\n![{figure.title}](figures/{figure.name}.png)\n\n{_plain(figure.how_to_read)}\n\n{_plain(figure.caption)}\n"
        for figure in drawn
    ]
    sentences = [f"- {_plain(sentence)}" for sentence in summary(result)]
    title = f"# Evaluation awareness of {_plain(result.model_name)}"
    return "\n".join([title, "", *_top(result), *sentences, "", *head, *rows, "", *_measures(result), *figures])


def _top(result: AuditResult) -> list[str]:
    """The verdicts and the instrument's checks."""
    lines = []
    for verdict in verdicts(result):
        facts = "; ".join(f"{label}: {text}" for label, text in verdict.facts)
        lines.append(f"- **{_plain(verdict.task)}**: {_plain(verdict.headline)}. {_plain(facts)}.")
    panel = [f"| {check.name} | {check.state} | {_plain(check.number)} | {_plain(check.sentence)} |" for check in instrument_panel(result)]
    return [*lines, "", "| instrument | state | number | what it says |", "|---|---|---|---|", *panel, ""]


def _measures(result: AuditResult) -> list[str]:
    """The AUROC of each measure against deployment traffic, and what may be concluded, in words."""
    if not result.measures:
        return []
    rows = [
        f"| {_plain(task)} | {_plain(measure)} | {_plain(interval(one.auroc))} | {_plain(rate_text(one.share_above_95))} "
        f"| {_plain(rate_text(one.precision['0.05']))} | {one.n} | {_plain(one.sentence)} |"
        for task, measures in result.measures.items()
        for measure, one in measures.items()
        if not measure.startswith(SINGLE)
    ]
    head = [
        "- Measures against deployment traffic; precision of a flag above its 95th percentile at a prevalence of 5 %:",
        "",
        "| task | measure | AUROC | above the 95th percentile | precision | n | reading |",
        "|---|---|---|---|---|---|---|",
    ]
    return [*head, *rows, "", *(f"- {_plain(line)}" for line in measure_lines(result)), ""]
