"""CSV that a spreadsheet opens as data: no cell starts a formula."""

import csv
import io
import unicodedata

import pandas as pd

from nla.support.display import visible

_STARTS = frozenset("=+-@")


def safe_csv(table: pd.DataFrame) -> str:
    """Return a table as CSV in which a cell or heading that could start a formula begins with an apostrophe instead."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([quoted(column) for column in table.columns])
    for row in table.itertuples(index=False):
        writer.writerow([quoted(cell) for cell in row])
    return out.getvalue()


def quoted(cell: object) -> object:
    """Put an apostrophe before a text that a spreadsheet could read as a formula.

    A formula may follow blanks, line breaks, a byte order mark, zero-width or private characters, and its first character may be
    full-width (NFKC maps these to the plain characters). Numbers stay as they are.
    """
    return f"'{cell}" if isinstance(cell, str) and _starts_formula(cell) else cell


def _starts_formula(text: str) -> bool:
    if text[:1] in ("\t", "\r"):  # some spreadsheets split a cell here
        return True
    return next(filter(_is_seen, unicodedata.normalize("NFKC", text)), "") in _STARTS


def _is_seen(character: str) -> bool:
    """Return whether a character has a look of its own: no blank, no control character, and no private or unassigned code."""
    return unicodedata.category(character)[0] not in "CZ" and visible(character) == character
