"""Texts that UTF-8 can hold: a model or a log may contain lone surrogates, which neither JSON files nor parquet tables can store."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd


def encodable(value: object) -> object:
    r"""Return the value; in a text, each lone surrogate becomes an escape such as `\ud800`."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return a table of rows, with encodable texts."""
    return pd.DataFrame([{name: encodable(value) for name, value in row.items()} for row in rows])
