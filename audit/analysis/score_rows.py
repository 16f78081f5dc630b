"""Own scores and coherence of the conditions that are run without the awareness measures: the unrelated contrasts."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from audit.analysis.tables import score_number
from audit.analysis.texts import frame
from audit.config import Condition
from audit.logs import LOGS, newest_finished
from graders.record import CoherenceRecord, read_records

COLUMNS = ("task", "role", "condition", "direction", "strength", "sample_id", "epoch", "own_score", "mean_logprob", "repeated_4")
"""Columns of the table; those of the transcripts' table with the same names mean the same."""


def read_scores(out: Path, conditions: Iterable[Condition]) -> pd.DataFrame:
    """Return one row per transcript of some conditions; errored samples have neither score nor coherence.

    Raises:
        DataError: a record in a log cannot be read.
    """
    rows: list[dict[str, Any]] = []
    for condition in conditions:
        for log in newest_finished(out / LOGS / condition.name):
            for sample in log.samples or []:
                records = read_records(sample.scores) if sample.error is None else None
                coherence = (records.coherence if records else None) or CoherenceRecord()
                values = (
                    *(log.eval.task, (log.eval.metadata or {}).get("role", ""), condition.name, condition.direction, condition.strength),
                    *(str(sample.id), sample.epoch, score_number(records.own_score) if records else None),
                    *(coherence.mean_logprob, coherence.repeated_4),
                )
                rows.append(dict(zip(COLUMNS, values, strict=True)))
    return frame(rows) if rows else pd.DataFrame(columns=list(COLUMNS))
