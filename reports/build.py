"""`audit report`: one self-contained page, a Markdown report, figures and tables of an analysed audit.

Every string from a model or data set is untrusted. Templates escape it, the page's content security policy allows no script but its own (by
hash) and no network, data blocks cannot end their script element, Markdown shows it as text, and no CSV cell starts a formula.
"""

import base64
import gzip
import json
import math
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from audit.analysis.measure_scores import SINGLE
from audit.analysis.measure_words import interval
from audit.analysis.result import AuditResult, Cell
from audit.analysis.stored import StoredAudit
from audit.analysis.token_views import cosine
from audit.terminal import against_floor, measure_lines
from nla.organisms.stored_check import StoredCheck
from nla.support.display import visible
from reports.csv_text import safe_csv
from reports.figures import Drawn, all_figures
from reports.output import PAGE, write_files
from reports.pages import TEMPLATES, hashed_script
from reports.words import rate_text, summary

_CHUNK = 100
"""Transcripts per compressed block of the page; a block is unpacked when one of its transcripts is opened."""
_LONGEST = 4_000
"""Characters of an explanation that the page shows; a longer one is cut, with a note of its length."""


def build_report(audit: StoredAudit, out: Path, checks: Sequence[StoredCheck] = ()) -> Path:
    """Write the report of an analysed audit (`audit.analysis.stored.read_stored`) into a folder, and return the path of the page.

    Args:
        audit: the analysed audit.
        out: the report's folder.
        checks: known-groups checks of models (`nla.organisms.stored_check.read_check`), which are drawn into one figure.

    Raises:
        ConfigError: another process is writing a report into the folder.
        DataError: the folder holds files that no report wrote, or it cannot be written.
    """
    drawn = all_figures(audit.result, checks)
    files = {f"figures/{figure.name}.{kind}": figure.encoded(kind) for figure in drawn for kind in ("svg", "png")}
    tables = {"cells": cell_table(audit.result), "transcripts": audit.transcripts, "explanations": audit.explanations}
    files |= {f"tables/{name}.csv": _utf8(safe_csv(table)) for name, table in tables.items()}
    files["report.md"] = _utf8(markdown(audit.result, drawn))
    files[PAGE] = _utf8(page(audit, drawn))
    return write_files(files, out) / PAGE


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")  # a lone surrogate becomes an escape


def cell_table(result: AuditResult) -> pd.DataFrame:
    """One row per cell, with every number that figures and text show."""
    return pd.DataFrame([_cell_row(cell, result) for cell in result.cells])


def _cell_row(cell: Cell, result: AuditResult) -> dict[str, Any]:
    internal, verbalized = cell.internal.scored, cell.verbalized.scored
    return {
        "task": cell.task,
        "role": cell.role,
        "condition": cell.condition,
        "n": internal.n,
        "unscored": internal.n_unscored,
        "internal": internal.estimate,
        "internal_low": internal.low,
        "internal_high": internal.high,
        "internal_if_unscored_no": cell.internal.all_no.estimate,
        "internal_if_unscored_yes": cell.internal.all_yes.estimate,
        "verbalized": verbalized.estimate,
        "verbalized_low": verbalized.low,
        "verbalized_high": verbalized.high,
        "token_rate": cell.token_rate.estimate,
        "unclear_explanations": cell.unclear,
        "mean_k": cell.mean_k,
        "own_score": cell.own_score.estimate,
        "mean_logprob": cell.mean_logprob.estimate,
        "against_floor": against_floor(cell, result),
    }


def markdown(result: AuditResult, drawn: list[Drawn]) -> str:
    """The report as Markdown, with the figures as files."""
    rows = [
        f"| {_plain(cell.task)} | {_plain(cell.condition)} | {_plain(rate_text(cell.internal.scored))} "
        f"| {_plain(rate_text(cell.token_rate))} "
        f"| {_plain(rate_text(cell.verbalized.scored))} | {cell.internal.scored.n_unscored} | {_plain(against_floor(cell, result))} |"
        for cell in result.cells
    ]
    head = [
        "| task | condition | internal | share of tokens | verbalised | unscored | against the floor |",
        "|---|---|---|---|---|---|---|",
    ]
    figures = [f"## {figure.title}\n\n![{figure.title}](figures/{figure.name}.png)\n\n{_plain(figure.caption)}\n" for figure in drawn]
    sentences = [f"- {_plain(sentence)}" for sentence in summary(result)]
    return "\n".join(["# Evaluation awareness", "", *sentences, "", *head, *rows, "", *_measures(result), *figures])


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


_ESCAPED = {character: f"\\{character}" for character in "\\`*_[]|#~!$"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;"}


def _plain(text: str) -> str:
    """A text that Markdown shows unchanged on one line; control characters and line breaks become escapes such as `\\x0a`."""
    return "".join(_ESCAPED.get(character, character) for character in visible(text))


def page(audit: StoredAudit, drawn: list[Drawn]) -> str:
    """The self-contained page."""
    result = audit.result
    script, digest = hashed_script("explorer.js")
    index, blocks = explorer_data(audit.transcripts, audit.explanations)
    return TEMPLATES.get_template("index.html.j2").render(
        result=result,
        summary=summary(result),
        cells=[
            (cell, *map(rate_text, (cell.internal.scored, cell.token_rate, cell.verbalized.scored)), against_floor(cell, result))
            for cell in result.cells
        ],
        figures=[(figure, base64.b64encode(figure.encoded("svg")).decode()) for figure in drawn],
        script=Markup(script),
        script_hash=digest,
        index=Markup(data_block(index)),
        blocks=blocks,
    )


def data_block(content: Any) -> str:
    """JSON that can neither end the script element that contains it nor be read as markup.

    Raises:
        ValueError: a number is not finite, which JSON cannot express.
    """
    return json.dumps(content, allow_nan=False).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def explorer_data(transcripts: pd.DataFrame, explanations: pd.DataFrame) -> tuple[list[dict[str, Any]], list[str]]:
    """Data of the explorer: one short entry per transcript, and compressed blocks of their explanations in the same order."""
    by_transcript = dict(iter(explanations.groupby("transcript", sort=False))) if len(explanations) else {}
    index: list[dict[str, Any]] = []
    details: list[list[list[Any]]] = []
    for row in transcripts.to_dict("records"):
        table = by_transcript.get(row["transcript"])
        tokens = [] if table is None else [_token(token) for token in table.to_dict("records")]
        details.append(tokens)
        index.append(
            {
                "task": _text(row["task"]),
                "condition": _text(row["condition"]),
                "id": _text(row["sample_id"]),
                "epoch": _whole(row["epoch"]) or 1,
                "flag": _whole(row["internal"]),
                "yes": _whole(row.get("n_yes")) or 0,
                "unclear": _whole(row.get("n_unclear")) or 0,
                "k": len(tokens),
                "log": _text(row["log"]),
            }
        )
    blocks = [_packed(details[start : start + _CHUNK]) for start in range(0, len(details), _CHUNK)]
    return index, blocks


def _token(token: Mapping[Hashable, Any]) -> list[Any]:
    text = _text(token["explanation"])
    shown = text if len(text) <= _LONGEST else f"{text[:_LONGEST]} … (cut: {len(text):,} characters)"
    verdict = token["verdict"] if token["verdict"] in ("YES", "NO", "UNCLEAR") else "unscored"
    distance = _number(token.get("mse_nrm"))
    return [
        _text(token["token"]),
        _whole(token["position"]),
        shown,
        verdict,
        _text(token["evidence"]),
        _text(token["reason"]) or _text(token["rule"]),
        None if distance is None else round(cosine(distance), 3),
    ]


def _number(value: Any) -> float | None:
    """A finite number, or None for anything else; a table may hold missing values, and a log may hold anything."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _whole(value: Any) -> int | None:
    number = _number(value)
    return None if number is None else int(number)


def _text(value: Any) -> str:
    """A text, empty for a missing value."""
    if isinstance(value, str):
        return value
    return "" if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)) else str(value)


def _packed(content: Any) -> str:
    return base64.b64encode(gzip.compress(json.dumps(content, allow_nan=False).encode(), mtime=0)).decode()
