"""Shards of training data: parquet files with the columns of the public reference, each with a sidecar, written whole or not at all.

A shard holds `activation_vector` (fixed-size list of d_model float32, raw), the text before each token, the teacher's explanation and
the document id. Beside each `NAME.parquet`, `NAME.parquet.nla_meta.yaml` says what the vectors were read from.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray

from nla.pair.contract import SIDECAR
from nla.support.display import visible
from nla.support.errors import DataError, first_line
from nla.support.files import replacing
from nla.support.limited_yaml import read_yaml

VECTOR = "activation_vector"


@dataclass(frozen=True)
class Extraction:
    """What the shards of a data set were read from; shards of different extractions are never mixed."""

    base_model: str
    d_model: int
    layer_index: int
    corpus: str
    teacher: str
    settings: str
    """Hash of everything that decides how documents are read; a run with other settings is refused in the same folder."""
    norm: str = "none"


@dataclass(frozen=True)
class Example:
    """One token: its raw vector `[d_model]`, the text up to it, and the teacher's explanation."""

    activation_vector: NDArray[np.float32]
    n_raw_tokens: int
    activation_layer: int
    doc_id: str
    detokenized_text_truncated: str
    api_explanation: str
    situation: str
    token_id: int


def write_shard(path: Path, examples: Sequence[Example], extraction: Extraction) -> None:
    """Write a shard and its sidecar. The parquet file appears last, so an existing shard is whole.

    Raises:
        DataError: a file cannot be written.
    """
    columns: dict[str, Any] = {
        name: [getattr(example, name) for example in examples] for name in Example.__dataclass_fields__ if name != VECTOR
    }
    flat = np.concatenate([example.activation_vector for example in examples]).astype(np.float32)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(flat), extraction.d_model)
    table = pa.table({VECTOR: vectors, **columns})
    described = asdict(extraction)
    ours = {name: described.pop(name) for name in ("teacher", "settings")}
    meta = {
        "kind": "nla_dataset",
        "schema_version": 1,
        "stage": "base",
        "row_count": len(examples),
        "extraction": described,
        "harness": ours,
    }
    sidecar = path.with_name(f"{path.name}.{SIDECAR}")
    with replacing(sidecar) as scratch:
        scratch.write_text(yaml.safe_dump(meta, sort_keys=False), encoding="utf-8")
    with replacing(path) as scratch:
        pq.write_table(table, scratch)


def read_extraction(path: Path) -> Extraction:
    """Read what a shard's vectors were read from, from its sidecar.

    Raises:
        DataError: there is no sidecar, or it is not the sidecar of a data set.
    """
    sidecar = path.with_name(f"{path.name}.{SIDECAR}")
    try:
        meta = read_yaml(sidecar)
        if meta["kind"] != "nla_dataset":
            raise ValueError(f"kind is {visible(meta['kind'], limit=60)}, expected nla_dataset")
        ours = meta.get("harness") or {}
        known = {name: value for name, value in meta["extraction"].items() if name in Extraction.__dataclass_fields__}
        return Extraction(**known, teacher=str(ours.get("teacher", "")), settings=str(ours.get("settings", "")))
    except (OSError, KeyError, TypeError, AttributeError, ValueError, RecursionError) as ex:
        reason = f"it lacks {ex}" if isinstance(ex, KeyError) else first_line(ex).rstrip(".")
        raise DataError(f"{sidecar} cannot be read as a data set's sidecar: {reason}. Make the shard again with `nla data`.") from ex


@dataclass(frozen=True)
class Dataset:
    """All shards of a folder: raw vectors `[n, d_model]` (float32), and one entry per vector in each list."""

    vectors: NDArray[np.float32]
    doc_ids: list[str]
    texts: list[str]
    explanations: list[str]
    situations: list[str]
    token_ids: list[int]
    extraction: Extraction

    def __len__(self) -> int:
        return len(self.doc_ids)


def read_dataset(folder: Path) -> Dataset:
    """Read all shards of a folder as one data set, in the order of their names.

    Raises:
        DataError: there is no shard, a shard cannot be read, a column is missing, vectors are not d_model wide, or the shards were read
            from different extractions.
    """
    paths = sorted(folder.glob("*.parquet"))
    if not paths:
        raise DataError(f"{folder} has no shard (*.parquet); make them with `nla data`.")
    first = read_extraction(paths[0])
    vectors: list[NDArray[np.float32]] = []
    columns = {name: list[Any]() for name in ("doc_id", "detokenized_text_truncated", "api_explanation", "situation", "token_id")}
    for path in paths:
        extraction = read_extraction(path)
        if extraction != first:
            raise DataError(f"{path.name} was read from {extraction}, but {paths[0].name} from {first}; keep them in different folders.")
        try:
            table = pq.read_table(path)
        except (OSError, pa.ArrowException) as ex:
            raise DataError(f"{path} cannot be read: {first_line(ex)} Delete it and run `nla data` again.") from ex
        missing = [name for name in (VECTOR, *columns) if name not in table.column_names]
        if missing:
            raise DataError(f"{path} has no column {', '.join(missing)} (found: {', '.join(table.column_names)}).")
        flat = _flat(table[VECTOR], path)
        if flat.size != table.num_rows * first.d_model:
            raise DataError(f"{path} has vectors of different widths; expected {first.d_model} numbers per row.")
        vectors.append(flat.reshape(table.num_rows, first.d_model))
        for name, values in columns.items():
            values.extend(table[name].to_pylist())
    return Dataset(
        np.concatenate(vectors),
        columns["doc_id"],
        columns["detokenized_text_truncated"],
        columns["api_explanation"],
        columns["situation"],
        columns["token_id"],
        first,
    )


def _flat(column: pa.ChunkedArray, path: Path) -> NDArray[np.float32]:
    """Return the numbers of a column of vectors, one row after the other."""
    try:
        flat: NDArray[np.float32] = pa.compute.list_flatten(column).to_numpy().astype(np.float32)
    except (pa.ArrowException, ValueError, TypeError) as ex:
        raise DataError(f"{path}: the column {VECTOR} holds {column.type}, expected lists of numbers.") from ex
    return flat
