"""`audit report`: one self-contained page, a Markdown report, figures and tables from an audit's `audit.json` and tables.

Every string from a model or data set is untrusted: templates escape, the page's content security policy allows no script but its
own (by hash) and no network, and data blocks cannot end their script element. A report is built beside the old one and then
takes its place, so an interruption leaves the old one whole.
"""

import base64
import csv
import gzip
import io
import json
import os
import shutil
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from audit.analysis.analyze import analyze
from audit.analysis.result import RESULT_FILE, AuditResult, Cell, read_result
from audit.terminal import against_floor
from nla.support.errors import DataError
from reports.figures import Drawn, all_figures
from reports.pages import TEMPLATES, hashed_script
from reports.words import rate_text, summary

_CHUNK = 100
"""Transcripts in a compressed block of the page; a block is unpacked when one of its transcripts is opened."""
_LONGEST = 4_000
"""Characters of an explanation or response that the page shows; longer ones are cut, and say so."""


def build_report(run: Path, out: Path) -> Path:
    """Write the report of an audit's folder; returns the page.

    Raises:
        DataError: no finished audit there, or the output cannot be written.
        ConfigError: no audit's folder.
    """
    result = read_result(run / RESULT_FILE) if (run / RESULT_FILE).is_file() else analyze(run)
    transcripts, explanations = (pd.read_parquet(run / f"{name}.parquet") for name in ("transcripts", "explanations"))
    scratch = out.with_name(f".{out.name}.tmp")
    try:
        shutil.rmtree(scratch, ignore_errors=True)
        (scratch / "figures").mkdir(parents=True)
        (scratch / "tables").mkdir()
        drawn = all_figures(result)
        for one in drawn:
            for kind in ("svg", "png"):
                (scratch / "figures" / f"{one.name}.{kind}").write_bytes(one.encoded(kind))
        for name, table in (("cells", cell_table(result)), ("transcripts", transcripts), ("explanations", explanations)):
            (scratch / "tables" / f"{name}.csv").write_text(safe_csv(table), encoding="utf-8")
        (scratch / "report.md").write_text(markdown(result, drawn), encoding="utf-8")
        (scratch / "index.html").write_text(page(result, drawn, transcripts, explanations), encoding="utf-8")
        _take_place(scratch, out)
    except OSError as ex:
        raise DataError(f"the report cannot be written to {out}: {ex.strerror or ex}.") from ex
    return out / "index.html"


def _take_place(scratch: Path, out: Path) -> None:
    old = out.with_name(f".{out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        if not (out / "index.html").is_file() and any(out.iterdir()):
            raise DataError(f"{out} holds files that are no report; give another folder (-o).")
        os.replace(out, old)
    os.replace(scratch, out)
    shutil.rmtree(old, ignore_errors=True)


def cell_table(result: AuditResult) -> pd.DataFrame:
    """One row a cell, with every number the figures and the text show."""
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


def safe_csv(table: pd.DataFrame) -> str:
    """CSV in which no cell starts a formula when a spreadsheet opens it."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(table.columns)
    for row in table.itertuples(index=False):
        writer.writerow([f"'{cell}" if isinstance(cell, str) and cell[:1] in "=+-@\t\r" and cell else cell for cell in row])
    return out.getvalue()


def markdown(result: AuditResult, drawn: list[Drawn]) -> str:
    """The report as Markdown, with the figures as files."""
    rows = [
        f"| {_plain(cell.task)} | {cell.condition} | {rate_text(cell.internal.scored)} | {rate_text(cell.verbalized.scored)} "
        f"| {cell.internal.scored.n_unscored} | {against_floor(cell, result)} |"
        for cell in result.cells
    ]
    head = ["| task | condition | internal | verbalised | unscored | against the floor |", "|---|---|---|---|---|---|"]
    figures = [f"## {one.title}\n\n![{one.title}](figures/{one.name}.png)\n\n{_plain(one.caption)}\n" for one in drawn]
    words = [f"- {_plain(sentence)}" for sentence in summary(result)]
    return "\n".join(["# Evaluation awareness", "", *words, "", *head, *rows, "", *figures])


def _plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    for character in "\\`*_[]<>|":
        text = text.replace(character, f"\\{character}" if character not in "<>" else {"<": "&lt;", ">": "&gt;"}[character])
    return text


def page(result: AuditResult, drawn: list[Drawn], transcripts: pd.DataFrame, explanations: pd.DataFrame) -> str:
    """The self-contained page."""
    script, digest = hashed_script("explorer.js")
    index, blocks = explorer_data(transcripts, explanations)
    return TEMPLATES.get_template("index.html.j2").render(
        result=result,
        summary=summary(result),
        cells=[
            (cell, rate_text(cell.internal.scored), rate_text(cell.verbalized.scored), against_floor(cell, result)) for cell in result.cells
        ],
        figures=[(one, base64.b64encode(one.encoded("svg")).decode()) for one in drawn],
        script=Markup(script),
        script_hash=digest,
        index=Markup(data_block(index)),
        blocks=blocks,
    )


def data_block(content: Any) -> str:
    """JSON that cannot end the script element it stands in, nor be read as markup."""
    return json.dumps(content, ensure_ascii=True).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def explorer_data(transcripts: pd.DataFrame, explanations: pd.DataFrame) -> tuple[list[dict[str, Any]], list[str]]:
    """(one short entry a transcript, compressed blocks of their explanations in the same order)."""
    told = dict(iter(explanations.groupby("transcript", sort=False))) if len(explanations) else {}
    index: list[dict[str, Any]] = []
    details: list[list[list[Any]]] = []
    for row in transcripts.to_dict("records"):
        one = told.get(row["transcript"])
        tokens = [] if one is None else [_token(token) for token in one.to_dict("records")]
        details.append(tokens)
        flag = row["internal"]
        index.append(
            {
                "task": row["task"],
                "condition": row["condition"],
                "id": row["sample_id"],
                "epoch": row["epoch"],
                "flag": None if pd.isna(flag) else int(flag),
                "yes": int(row["n_yes"] or 0),
                "unclear": int(row["n_unclear"] or 0),
                "k": len(tokens),
                "log": row["log"],
            }
        )
    blocks = [_packed(details[start : start + _CHUNK]) for start in range(0, len(details), _CHUNK)]
    return index, blocks


def _token(token: Mapping[Hashable, Any]) -> list[Any]:
    text = str(token["explanation"] or "")
    shown = text if len(text) <= _LONGEST else f"{text[:_LONGEST]} … (cut: {len(text):,} characters)"
    verdict = token["verdict"] if isinstance(token["verdict"], str) else "unscored"
    return [
        str(token["token"]),
        int(token["position"]),
        shown,
        verdict,
        str(token["evidence"] or ""),
        str(token["reason"] or token["rule"] or ""),
        cosine(token.get("mse_nrm")),
    ]


def cosine(mse_nrm: Any) -> float | None:
    """Cosine between a vector and its reconstruction from their squared distance as unit vectors; None where it was not measured."""
    return None if mse_nrm is None or pd.isna(mse_nrm) else round(1 - float(mse_nrm) / 2, 3)


def _packed(content: Any) -> str:
    return base64.b64encode(gzip.compress(json.dumps(content).encode(), mtime=0)).decode()
