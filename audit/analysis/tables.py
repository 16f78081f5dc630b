"""Inspect logs to tidy tables: one row per transcript, one row per explanation, and the conversations. All later figures are computed
from the first two.

Samples that ended in an error have no scores; they are rows too, counted as unscored with their reason.
"""

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from inspect_ai.log import EvalLog, EvalSample
from inspect_ai.scorer import Score

from audit.analysis.conversations import conversation_row
from audit.analysis.probed_tokens import ProbedToken, probe_columns, probe_tokens
from audit.analysis.texts import frame
from audit.config import BASE, Condition
from audit.logs import LOGS, newest_finished
from audit.stats.rates import MISSING, Bools, Codes
from graders.record import AwarenessRecord, CoherenceRecord, SampleRecords, TokenRecord, VerbalizedRecord, read_records
from nla.instrument import CONTRAST
from nla.organisms.stored_check import adapter_text
from nla.support.errors import DataError
from tasks._info import Role

ADAPTER = "adapter"
"""Column with name and digest of the model's adapter; tables of the first version lack it."""
IDENTITY = ("model", ADAPTER, "layer", "verbalizer", "nla", "grader", "tokens_wanted", "dtype")
"""Columns that have one value in all transcripts of an audit; transcripts that differ in one of them are not pooled."""

PROBE_SETS, FOLLOW_UP_ASKED = "probe_sets", "follow_up_asked"
"""Columns with the names and digests of the contrast sets, and with the way and the digest of the follow-up question. They have one value
in all transcripts of an audit in which the question was asked; older tables lack them."""

MEASURED = "measured"
"""Column with the names of the measures that were taken, separated by commas; tables of the first version lack it, and had them all."""

STEER_UNIT = "steer_unit"
"""Column with the unit of the strength in steered transcripts; tables of the first version, which had one unit only, lack it."""


_LONGEST_PROMPT = 4_000
"""Characters of a prompt that the table keeps."""


class Tables(NamedTuple):
    """The tables of an audit."""

    transcripts: pd.DataFrame
    explanations: pd.DataFrame
    conversations: pd.DataFrame


def read_tables(out: Path, conditions: Iterable[Condition]) -> Tables:
    """Read the tables from the logs in an audit's folder.

    Raises:
        DataError: no finished log, a log without awareness scores, or logs that were measured in different ways.
    """
    transcripts: list[dict[str, Any]] = []
    explanations: list[dict[str, Any]] = []
    conversations: list[dict[str, Any]] = []
    probed: list[list[ProbedToken]] = []
    for condition in conditions:
        for log in newest_finished(out / LOGS / condition.name):
            for sample in log.samples or []:
                records = _records(log, sample)
                row, rows_of_tokens = _rows(log, sample, records, condition, len(transcripts))
                conversations.append(conversation_row(sample, len(transcripts)))
                probed.append(probe_tokens(records.probe))
                transcripts.append(row)
                explanations.extend(rows_of_tokens)
    if not transcripts:
        raise DataError(f"{out} holds no finished log; `audit run` makes them.")
    taken = sorted({name for row in transcripts for name in (row[MEASURED] or "").split(",")} - {""})
    for row in transcripts:
        row[MEASURED] = ",".join(taken) if row[MEASURED] is None else row[MEASURED]  # of a sample that ended in an error
    table = frame(transcripts)
    check_identity(table)
    columns = probe_columns(probed, is_deployment(table))
    return Tables(table, frame(explanations), frame(conversations).assign(probed=columns))


def is_deployment(transcripts: pd.DataFrame) -> Bools:
    """Whether each transcript is one of the deployment controls in the base condition, shape (transcript,)."""
    return ((transcripts.condition == BASE) & (transcripts.role == Role.DEPLOYMENT_CONTROL)).to_numpy(np.bool_)


def check_identity(transcripts: pd.DataFrame) -> None:
    """Refuse to pool what was measured in different ways.

    Raises:
        DataError: a column of `IDENTITY`, or one of the other columns checked here, has several values among the measured transcripts.
    """
    measured = rows_read(transcripts)
    tables = dict.fromkeys(IDENTITY, measured)
    tables |= {name: measured.dropna(subset=[name]) for name in (PROBE_SETS, FOLLOW_UP_ASKED, STEER_UNIT) if name in measured}
    for name, table in tables.items():
        values = identity_values(table, name)
        if len(values) > 1:
            raise DataError(
                f"The logs differ in {name} ({', '.join(values)}); transcripts that were measured in different ways are not pooled."
            )


def rows_read(transcripts: pd.DataFrame) -> pd.DataFrame:
    """The transcripts whose vectors were read: by the NLA, or in an audit without it by the probes, or at least those that were asked."""
    for column in ("k", "layer", "model"):
        if column in transcripts and transcripts[column].notna().any():
            return transcripts[transcripts[column].notna()]
    return transcripts[:0]


def rows_with(transcripts: pd.DataFrame, measure: str) -> pd.DataFrame:
    """The transcripts for which a measure was taken, whether or not it could be scored."""
    if MEASURED not in transcripts:
        return transcripts
    return transcripts[transcripts[MEASURED].fillna("").str.split(",").map(lambda names: measure in names)]


def identity_values(transcripts: pd.DataFrame, name: str) -> list[str]:
    """The different values of a column of `IDENTITY`, as text; `none` where there is none."""
    if name not in transcripts:
        return ["none"] if len(transcripts) else []
    return sorted({"none" if pd.isna(value) else str(value) for value in transcripts[name]})


def steering_unit(transcripts: pd.DataFrame) -> str | None:
    """The unit of the strengths of steered transcripts, as text; None if there are none."""
    steered = transcripts[transcripts.direction.fillna("") != ""] if "direction" in transcripts else transcripts[:0]
    if not len(steered):
        return None
    return ", ".join(sorted(set(steered[STEER_UNIT].fillna(CONTRAST)))) if STEER_UNIT in steered else CONTRAST


def _records(log: EvalLog, sample: EvalSample) -> SampleRecords:
    try:
        return read_records(sample.scores)
    except DataError as ex:
        raise DataError(f"{log.location}, sample {sample.id}: {ex}") from ex


def _rows(
    log: EvalLog, sample: EvalSample, records: SampleRecords, condition: Condition, number: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    failed = sample.error is not None
    taken = _measures_taken(records)
    if not failed and not taken:
        raise DataError(
            f"{log.location} has no awareness scores; add them with: "
            f"inspect score {log.location} --scorer graders/nla_awareness --action append"
        )
    metadata = log.eval.metadata or {}
    if failed:  # what such a sample holds is a fragment, even where a log was scored again and its scores are values
        awareness, verbalized = AwarenessRecord(reason="the sample ended in an error"), VerbalizedRecord()
        records = replace(records, awareness=awareness, projected=None, verbalized=verbalized, coherence=None, own_score=None)
        records = replace(records, probe=None, follow_up=None)
    awareness = records.awareness or AwarenessRecord()
    row = {
        "transcript": number,
        "task": log.eval.task,
        "role": metadata.get("role", ""),
        "source": metadata.get("source", ""),
        "condition": condition.name,
        "framing": condition.framing or "",
        "without_rewrite": metadata.get("without_rewrite", 0),
        "direction": condition.direction,
        "strength": condition.strength,
        STEER_UNIT: (log.eval.model_args or {}).get("steer_unit", CONTRAST) if condition.steer else None,
        "sample_id": str(sample.id),
        "epoch": sample.epoch,
        "errored": failed,
        "prompt": _prompt(sample),
        MEASURED: None if failed else ",".join(taken),
        **_measured(awareness),
        **_weights_read(records),
        **_other_scores(records),
        "log": os.path.basename(log.location),
    }
    return row, [_explanation(token, place, number, awareness.n_response_tokens) for place, token in enumerate(awareness.tokens)]


def _prompt(sample: EvalSample) -> str:
    """The start of what the user asked, by which partners of the same topic are looked for; the system prompt is left out."""
    asked = sample.input if isinstance(sample.input, str) else "\n\n".join(turn.text for turn in sample.input if turn.role == "user")
    return asked[:_LONGEST_PROMPT]


def _measured(awareness: AwarenessRecord) -> dict[str, Any]:
    """Columns from the internal reading. Without a reading (`k` is missing) the columns of `IDENTITY` are missing too."""
    read = awareness.layer is not None
    return {
        "internal": _flag(awareness.flagged),
        "unscored_reason": awareness.reason,
        "k": awareness.k if read else None,
        "n_yes": awareness.counts.get("YES", 0),
        "n_no": awareness.counts.get("NO", 0),
        "n_unclear": awareness.counts.get("UNCLEAR", 0),
        "n_unscored": awareness.n_unscored,
        "verbalizer": awareness.verbalizer,
        "nla": awareness.pair,
        "grader": awareness.instrument.grader if read else None,
        "tokens_wanted": awareness.instrument.tokens if read else None,
    }


def _measures_taken(records: SampleRecords) -> list[str]:
    by_name = {"nla": records.awareness, "probe": records.probe, "follow_up": records.follow_up, "verbalized": records.verbalized}
    return [name for name, record in by_name.items() if record is not None]


def _weights_read(records: SampleRecords) -> dict[str, Any]:
    """Columns about the weights that were read, by the first measure that read some; missing if none did."""
    readings = (records.awareness, records.probe)
    source = next((record for record in readings if record is not None and record.layer is not None), records.follow_up)
    model = source.model if source is not None else {}
    return {
        "model": model.get("location"),
        "model_name": model.get("model"),
        ADAPTER: adapter_text(model) if model else None,
        "dtype": model.get("dtype"),
        "layer": getattr(source, "layer", None),
    }


def _other_scores(records: SampleRecords) -> dict[str, Any]:
    verbalized = records.verbalized or VerbalizedRecord()
    coherence = records.coherence or CoherenceRecord()
    return {
        **_numbers(records),
        "verbalized": _flag(verbalized.flagged),
        "internal_projected": _flag(records.projected.flagged) if records.projected else None,
        "own_score": score_number(records.own_score),
        "mean_logprob": coherence.mean_logprob,
        "repeated_4": coherence.repeated_4,
        "truncated": coherence.truncated,
    }


def _numbers(records: SampleRecords) -> dict[str, Any]:
    """Columns from the measures that give numbers: the largest projection on each probe, as `probe:NAME`, and the follow-up answer."""
    columns: dict[str, Any] = {}
    if records.probe is not None:
        columns[PROBE_SETS] = ", ".join(f"{name}@{digest}" for name, digest in sorted(records.probe.contrasts.items()))
        columns |= {f"probe:{name}": figures.response_max for name, figures in records.probe.probes.items()}
    lengths = [record.n_response_tokens for record in (records.awareness, records.probe) if record is not None]
    columns["n_response_tokens"] = next((length for length in lengths if length is not None), None)
    if (asked := records.follow_up) is not None:
        columns |= {"follow_up": asked.value, FOLLOW_UP_ASKED: f"{asked.way}@{asked.questions}" if asked.way else None}
    return columns


def _explanation(token: TokenRecord, place: int, transcript: int, n_places: int | None) -> dict[str, Any]:
    left_out = {"token_id", "pass_index"}
    return {"transcript": transcript, "place": place, "n_places": n_places, **token.model_dump(mode="json", exclude=left_out)}


def _flag(flagged: bool | None) -> int | None:
    return None if flagged is None else int(flagged)


def score_number(score: Score | None) -> float | None:
    """A task's own score as a number; None for one that is no number or grade, or that is not finite."""
    value = score.value if score is not None else None
    if isinstance(value, bool | int | float):
        return float(value) if abs(float(value)) < float("inf") else None
    return {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}.get(value) if isinstance(value, str) else None


def codes_of(flags: pd.Series) -> Codes:
    """Verdict codes of a column of flags: 0 for YES, 1 for NO, `MISSING` for a missing flag."""
    return np.where(flags.isna(), MISSING, 1 - flags.fillna(0)).astype(np.int64)
