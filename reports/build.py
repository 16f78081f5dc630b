"""`audit report`: one self-contained page, a Markdown report, figures and tables of an analysed audit.

Every string from a model or data set is untrusted. Templates escape it, the page's content security policy allows no script but its own (by
hash) and no network, data blocks cannot end their script element, Markdown shows it as text, and no CSV cell starts a formula.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from audit.analysis.result import AuditResult, Cell
from audit.analysis.stored import StoredAudit
from audit.terminal import against_floor
from nla.organisms.stored_check import StoredCheck, StoredSpectrum
from reports.csv_text import safe_csv
from reports.figures import all_figures
from reports.markdown import markdown
from reports.output import PAGE, write_files
from reports.page import page


def build_report(audit: StoredAudit, out: Path, checks: Sequence[StoredCheck] = (), spectra: Sequence[StoredSpectrum] = ()) -> Path:
    """Write the report of an analysed audit (`audit.analysis.stored.read_stored`) into a folder, and return the path of the page.

    Args:
        audit: the analysed audit.
        out: the report's folder.
        checks: known-groups checks of models (`nla.organisms.stored_check.read_check`), which are drawn into one figure.
        spectra: tables of readers (`nla.organisms.stored_check.read_spectrum_file`), which are drawn into another.

    Raises:
        ConfigError: another process is writing a report into the folder.
        DataError: the folder holds files that no report wrote, or it cannot be written.
    """
    drawn = all_figures(audit.result, checks, spectra)
    files = {f"figures/{figure.name}.{kind}": figure.encoded(kind) for figure in drawn for kind in ("svg", "png")}
    tables = {"cells": cell_table(audit.result), "transcripts": audit.transcripts, "explanations": audit.explanations}
    tables |= {f"figure_{figure.name}": figure.table for figure in drawn}
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
