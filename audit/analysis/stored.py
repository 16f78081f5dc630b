"""The files of an analysed audit, written and read as one generation.

`audit.json`, `transcripts.parquet`, `explanations.parquet` and `conversations.parquet` describe the same analysis. A digest over them,
the *generation*, is kept in `audit.json` and in the metadata of the tables. If a process is killed between the files, their generations
differ and reading them is refused, so that no report shows one analysis's explanations beside another's transcripts. Files of earlier
versions carry no generation or no conversations, and are read as they are.
"""

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from audit.analysis.notebook import html_table
from audit.analysis.result import RESULT_FILE, AuditResult, read_result, result_json
from audit.analysis.texts import encodable
from nla.support.display import visible
from nla.support.errors import DataError, first_line
from nla.support.files import remove_leftovers, replacing
from nla.support.locks import exclusive_lock

TRANSCRIPTS_FILE, EXPLANATIONS_FILE, CONVERSATIONS_FILE = "transcripts.parquet", "explanations.parquet", "conversations.parquet"
_KEY = b"awareness_generation"
_TRANSCRIPT_COLUMNS = frozenset(("transcript", "task", "condition", "sample_id", "epoch", "internal", "verbalized", "log"))
_EXPLANATION_COLUMNS = frozenset(("transcript", "token", "position", "explanation", "verdict", "evidence", "reason", "rule"))
_CONVERSATION_COLUMNS = frozenset(("transcript", "turns"))


def _no_conversations() -> pd.DataFrame:
    return pd.DataFrame({"transcript": pd.Series(dtype="int64"), "turns": pd.Series(dtype="object")})


@dataclass(frozen=True)
class StoredAudit:
    """An analysed audit: its result, one row per transcript, one row per explanation, and the conversations."""

    result: AuditResult
    transcripts: pd.DataFrame
    explanations: pd.DataFrame
    conversations: pd.DataFrame = field(default_factory=_no_conversations)
    """One row per transcript (`audit.analysis.conversations`); empty in audits of earlier versions."""

    def _repr_html_(self) -> str:
        """What a notebook shows: `audit.analysis.notebook.html_table`."""
        return html_table(self.result)


def write_stored(audit: StoredAudit, out: Path) -> StoredAudit:
    """Write the files into an audit's folder, and return the audit with its generation.

    All files are written completely before the first of them takes the place of its predecessor.

    Raises:
        DataError: a column has values of different types, or the files cannot be written.
    """
    tables = [
        _arrow(table, name)
        for table, name in (
            (audit.transcripts, TRANSCRIPTS_FILE),
            (audit.explanations, EXPLANATIONS_FILE),
            (audit.conversations, CONVERSATIONS_FILE),
        )
    ]
    audit = replace(audit, result=replace(audit.result, generation=_digest(audit.result, tables)))
    with exclusive_lock(out / RESULT_FILE, "audit analyze", blocking=True, folder=False):
        remove_leftovers(out)  # of a process that was killed at this place
        _write(audit, tables, out)
    return audit


def _write(audit: StoredAudit, tables: list[pa.Table], out: Path) -> None:
    with (
        replacing(out / RESULT_FILE) as result,
        replacing(out / CONVERSATIONS_FILE) as conversations,
        replacing(out / EXPLANATIONS_FILE) as explanations,
        replacing(out / TRANSCRIPTS_FILE) as transcripts,
    ):
        for table, path in zip(tables, (transcripts, explanations, conversations), strict=True):
            stamped = table.replace_schema_metadata((table.schema.metadata or {}) | {_KEY: audit.result.generation.encode()})
            pq.write_table(stamped, path, compression="zstd")
        result.write_bytes(result_json(audit.result))


def _arrow(table: pd.DataFrame, name: str) -> pa.Table:
    texts = [str(column) for column in table if table[column].dtype == object or pd.api.types.is_string_dtype(table[column])]
    clean = table.assign(**{column: table[column].map(encodable) for column in texts})
    try:
        return pa.Table.from_pandas(clean, preserve_index=False)
    except (pa.ArrowException, OverflowError, TypeError) as ex:
        raise DataError(
            f"{name} cannot be written: {visible(first_line(ex), limit=200)}; a log holds values of an unexpected type."
        ) from ex


def _digest(result: AuditResult, tables: list[pa.Table]) -> str:
    digest = hashlib.sha256(result_json(replace(result, generation="")))
    for table in tables:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        digest.update(sink.getvalue())
    return digest.hexdigest()


def is_analyzed(out: Path) -> bool:
    """Whether a folder holds an `audit.json`."""
    return (out / RESULT_FILE).is_file()


def read_stored(out: Path) -> StoredAudit:
    """Read the files of an analysed audit.

    Raises:
        DataError: a file is missing or not what it should be, or the files belong to different analyses.
    """
    result = read_result(out / RESULT_FILE)
    transcripts, of_transcripts = _read_table(out / TRANSCRIPTS_FILE, _TRANSCRIPT_COLUMNS)
    explanations, of_explanations = _read_table(out / EXPLANATIONS_FILE, _EXPLANATION_COLUMNS)
    conversations, of_conversations = _no_conversations(), result.generation
    if (out / CONVERSATIONS_FILE).exists():
        conversations, of_conversations = _read_table(out / CONVERSATIONS_FILE, _CONVERSATION_COLUMNS)
    _check_generations(out, result.generation, of_transcripts, of_explanations, of_conversations)
    return StoredAudit(result, transcripts, explanations, conversations)


def read_transcripts(out: Path) -> pd.DataFrame:
    """Read the transcripts of an analysed audit; `audit.json` is checked too where there is one.

    Raises:
        DataError: the table is missing or is not a table of transcripts, or `audit.json` belongs to another analysis.
    """
    transcripts, generation = _read_table(out / TRANSCRIPTS_FILE, _TRANSCRIPT_COLUMNS - {"transcript", "log"})
    if is_analyzed(out) or generation:
        _check_generations(out, read_result(out / RESULT_FILE).generation, generation)
    return transcripts


def _check_generations(out: Path, *generations: str) -> None:
    if len(set(generations)) > 1:
        raise DataError(
            f"The files in {out} belong to different analyses, because one was interrupted: expected the same generation in {RESULT_FILE} "
            f"and all tables. Run `audit analyze --out {out}` again."
        )


def _read_table(path: Path, columns: frozenset[str]) -> tuple[pd.DataFrame, str]:
    """Return a table and the generation it carries (empty in files of earlier versions)."""
    again = f"run `audit analyze --out {path.parent}` to make it from the logs"
    if not path.is_file():
        raise DataError(f"There is no {path}; {again}.")
    try:
        content = pq.read_table(path)
        table = content.to_pandas()
        generation = (content.schema.metadata or {}).get(_KEY, b"").decode()
    except (OSError, ValueError, TypeError, KeyError, pa.ArrowException) as ex:
        raise DataError(f"{path} cannot be read as a table ({visible(first_line(ex), limit=200)}); {again}.") from ex
    missing = sorted(columns - set(table.columns)) if len(table.columns) else []
    if missing:
        raise DataError(f"{path} has no column {', '.join(missing)}; {again}.")
    return table, generation
