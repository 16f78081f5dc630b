"""`audit report A --compare B --compare C --by model`: a page with one panel for each model, layer, pair or grader."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from audit.analysis.measure_words import MEASURE_WORDS
from audit.analysis.panels import Panel, differences
from audit.analysis.result import AuditResult
from audit.terminal import measure_lines
from reports.compare_page import auroc_rows
from reports.measure_figures import areas
from reports.output import COMPARISON, write_files
from reports.pages import TEMPLATES, hashed_script
from reports.verdicts import Verdict, verdicts
from reports.words import summary


class _ShownAudit(NamedTuple):
    """An audit within a panel, as its template shows it."""

    folder: str
    measured: str
    """What else distinguishes how it was measured; empty where nothing does."""
    transcripts: int
    verdicts: list[Verdict]
    figure: Markup | None
    caption: str
    sentences: list[str]


def build_panels(panels: Sequence[Panel], by: str, out: Path) -> Path:
    """Write `compare.html` into the folder of a report, or into a new folder, and return the path of the page.

    Args:
        panels: the audits, sorted by `audit.analysis.panels.panels`.
        by: what they were sorted by.
        out: the folder; other files of a report in it are kept.

    Raises:
        ConfigError: another process is writing a report into the folder.
        DataError: the folder holds files that no report wrote, or it cannot be written.
    """
    others = differences(panels, by)
    script, digest = hashed_script("compare.js")
    names, rows = _areas(panels)
    numbers = {folder: number for number, folder in enumerate(others, 1)}
    page = TEMPLATES.get_template("panels.html.j2").render(
        by=by.replace("_", " "),
        names=names,
        rows=rows,
        panels=[
            (panel.value, [_shown(numbers[folder], folder, result, others[folder], panel.value) for folder, result in panel.audits])
            for panel in panels
        ],
        script=Markup(script),
        script_hash=digest,
    )
    return write_files({COMPARISON: page.encode("utf-8", "backslashreplace")}, out, keep_others=True) / COMPARISON


def _shown(number: int, folder: str, result: AuditResult, measured: str, value: str) -> _ShownAudit:
    drawn = areas(result)
    if drawn is not None:  # ids on the page begin with the figure's name
        drawn = replace(drawn, name=f"measures-{number}", title=f"{drawn.title}: {value}")
    return _ShownAudit(
        folder,
        measured,
        result.n_transcripts,
        verdicts(result),
        None if drawn is None else Markup(drawn.inline_svg()),
        "" if drawn is None else drawn.caption,
        [*summary(result), *measure_lines(result, MEASURE_WORDS)],
    )


def _areas(panels: Sequence[Panel]) -> tuple[list[str], list[tuple[str, str, list[str]]]]:
    """Names of the audits, and per task and measure the AUROC of each of them."""
    audits = [(panel.value, folder, result) for panel in panels for folder, result in panel.audits]
    values = [value for value, _, _ in audits]
    names = [value if values.count(value) == 1 else f"{value} ({folder})" for value, folder, _ in audits]
    results = [result for _, _, result in audits]
    return names, auroc_rows(results, dict.fromkeys(task for result in results for task in result.measures))
