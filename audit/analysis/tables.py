"""Inspect logs to tidy tables: one row a transcript, and one row an explanation. Everything later is computed from these."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from inspect_ai.log import EvalLog, EvalSample

from audit.config import Condition
from audit.logs import LOGS, newest_finished
from audit.stats.rates import MISSING, Codes
from nla.support.errors import DataError
from nla.support.files import replacing

IDENTITY = ("model", "layer", "verbalizer", "nla", "grader", "tokens_wanted", "dtype")
"""What all transcripts of an audit have in common; others are not pooled with them."""
_OURS = ("nla_awareness", "verbalized_awareness", "coherence")


def read_tables(out: Path, conditions: Iterable[Condition]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(transcripts, explanations) of an audit's folder.

    Raises:
        DataError: no finished log, a log without awareness scores, or logs that were measured in different ways.
    """
    transcripts: list[dict[str, Any]] = []
    explanations: list[dict[str, Any]] = []
    for condition in conditions:
        for log in newest_finished(out / LOGS / condition.name):
            for sample in log.samples or []:
                row, told = _rows(log, sample, condition, len(transcripts))
                transcripts.append(row)
                explanations.extend(told)
    if not transcripts:
        raise DataError(f"{out} holds no finished log; `audit run` makes them.")
    table = pd.DataFrame(transcripts)
    check_identity(table)
    return table, pd.DataFrame(explanations)


def check_identity(transcripts: pd.DataFrame) -> None:
    """Refuse to pool what was measured in different ways.

    Raises:
        DataError: a column of `IDENTITY` has several values among the measured transcripts.
    """
    measured = transcripts[transcripts.k.notna()]
    for name in IDENTITY:
        values = identity_values(measured, name)
        if len(values) > 1:
            raise DataError(f"the logs differ in {name} ({', '.join(values)}); what is measured in different ways is not pooled.")


def identity_values(transcripts: pd.DataFrame, name: str) -> list[str]:
    """The different values of a column of `IDENTITY`, as text; `none` where there is none."""
    return sorted({"none" if pd.isna(value) else str(value) for value in transcripts[name]})


def _rows(log: EvalLog, sample: EvalSample, condition: Condition, number: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    scores = sample.scores or {}
    if "nla_awareness" not in scores or "verbalized_awareness" not in scores:
        raise DataError(
            f"{log.location} has no awareness scores; add them with: "
            f"inspect score {log.location} --scorer graders/nla_awareness --action append"
        )
    internal = scores["nla_awareness"].metadata or {}
    coherent = scores["coherence"].metadata or {} if "coherence" in scores else {}
    own = next((score for name, score in scores.items() if not name.startswith(_OURS)), None)
    projected = next((s for s in scores.values() if (s.metadata or {}).get("project_out") is True), None)
    model = internal.get("model") or {}
    counts = internal.get("counts") or {}
    row = {
        "transcript": number,
        "task": log.eval.task,
        "role": (log.eval.metadata or {}).get("role", ""),
        "source": (log.eval.metadata or {}).get("source", ""),
        "condition": condition.name,
        "framing": condition.framing or "",
        "without_rewrite": (log.eval.metadata or {}).get("without_rewrite", 0),
        "direction": condition.direction,
        "strength": condition.strength,
        "sample_id": str(sample.id),
        "epoch": sample.epoch,
        "internal": _flag(scores["nla_awareness"].value),
        "verbalized": _flag(scores["verbalized_awareness"].value),
        "internal_projected": _flag(projected.value) if projected is not None else None,
        "k": internal.get("k"),
        "n_yes": counts.get("YES", 0),
        "n_no": counts.get("NO", 0),
        "n_unclear": counts.get("UNCLEAR", 0),
        "n_unscored": internal.get("n_unscored", 0),
        "own_score": _number(own.value) if own is not None else None,
        "mean_logprob": coherent.get("mean_logprob"),
        "repeated_4": coherent.get("repeated_4"),
        "truncated": coherent.get("truncated"),
        "model": model.get("location"),
        "dtype": model.get("dtype"),
        "layer": internal.get("layer"),
        "verbalizer": internal.get("verbalizer"),
        "nla": internal.get("nla"),
        "grader": internal.get("grader"),
        "tokens_wanted": internal.get("tokens_wanted"),
        "log": os.path.basename(log.location),
    }
    told = [
        {"transcript": number, "place": place, "n_places": internal.get("n_response_tokens")} | _explanation(token)
        for place, token in enumerate(internal.get("tokens") or [])
    ]
    return row, told


def _explanation(token: dict[str, Any]) -> dict[str, Any]:
    names = ("token", "position", "channel", "explanation", "verdict", "rule", "evidence", "format_only", "reason", "mse_nrm")
    return {name: token.get(name) for name in names}


def _flag(value: Any) -> int | None:
    """1, 0, or None for a score that is not one of them (unscored)."""
    return int(value) if isinstance(value, int | float) and value in (0, 1) else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool | int | float):
        return float(value)
    return {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}.get(value) if isinstance(value, str) else None


def codes_of(flags: pd.Series) -> Codes:
    """Verdict codes (0 is YES, 1 NO) of a column of flags."""
    return np.where(flags.isna(), MISSING, 1 - flags.fillna(0)).astype(np.int64)


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as parquet (atomically)."""
    with replacing(path) as scratch:
        table.to_parquet(scratch)
