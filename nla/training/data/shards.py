"""Shards of training data: parquet files in the reference's columns, each with its sidecar, written whole or not at all."""

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
from nla.support.errors import DataError
from nla.support.files import replacing

VECTOR = "activation_vector"


@dataclass(frozen=True)
class Extraction:
    """What every shard of a data set was read from; shards of different extractions are never mixed."""

    base_model: str
    d_model: int
    layer_index: int
    corpus: str
    teacher: str
    settings: str
    """Hash of what decides how documents are read; a run with other settings does not go on in the same folder."""
    norm: str = "none"


@dataclass(frozen=True)
class Example:
    """One position: its raw vector, the text before it, and what the teacher says of it."""

    activation_vector: NDArray[np.float32]
    n_raw_tokens: int
    activation_layer: int
    doc_id: str
    detokenized_text_truncated: str
    api_explanation: str
    situation: str
    token_id: int


def write_shard(path: Path, examples: Sequence[Example], extraction: Extraction) -> None:
    """Write a shard and its sidecar; the parquet file appears last, so a shard that is there is whole."""
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
    """What a shard's sidecar says it was read from.

    Raises:
        DataError: no sidecar, or not one of a data set.
    """
    sidecar = path.with_name(f"{path.name}.{SIDECAR}")
    try:
        meta = yaml.safe_load(sidecar.read_text(encoding="utf-8"))
        if meta["kind"] != "nla_dataset":
            raise KeyError(f"kind is {meta['kind']}, expected nla_dataset")
        ours = meta.get("harness") or {}
        known = {name: value for name, value in meta["extraction"].items() if name in Extraction.__dataclass_fields__}
        return Extraction(**known, teacher=str(ours.get("teacher", "")), settings=str(ours.get("settings", "")))
    except (OSError, KeyError, TypeError, ValueError, yaml.YAMLError) as ex:
        raise DataError(f"{sidecar} cannot be read as the sidecar of a data set ({ex}); make the shard again with `nla data`.") from ex


@dataclass(frozen=True)
class Dataset:
    """All shards of a folder: vectors `[n, d_model]` and, row for row, the texts."""

    vectors: NDArray[np.float32]
    doc_ids: list[str]
    texts: list[str]
    explanations: list[str]
    situations: list[str]
    token_ids: list[int]
    extraction: Extraction

    def __len__(self) -> int:
        return len(self.doc_ids)

    def take(self, rows: Sequence[int]) -> "Dataset":
        """The rows given, in their order."""
        pick = [int(row) for row in rows]
        lists = ([values[i] for i in pick] for values in (self.doc_ids, self.texts, self.explanations, self.situations))
        doc_ids, texts, explanations, situations = lists
        return Dataset(self.vectors[pick], doc_ids, texts, explanations, situations, [self.token_ids[i] for i in pick], self.extraction)


def read_dataset(folder: Path) -> Dataset:
    """All shards of a folder as one data set, in the order of their names.

    Raises:
        DataError: no shard, a broken one, a missing column, vectors of another width, or shards of different extractions.
    """
    paths = sorted(folder.glob("*.parquet"))
    if not paths:
        raise DataError(f"{folder} holds no shard (*.parquet); make them with `nla data`.")
    first = read_extraction(paths[0])
    vectors, columns = (
        [],
        {name: list[Any]() for name in ("doc_id", "detokenized_text_truncated", "api_explanation", "situation", "token_id")},
    )
    for path in paths:
        extraction = read_extraction(path)
        if extraction != first:
            raise DataError(f"{path.name} was read from {extraction}, but {paths[0].name} from {first}; keep them in different folders.")
        try:
            table = pq.read_table(path)
        except (OSError, pa.ArrowInvalid) as ex:
            raise DataError(f"{path} cannot be read: {str(ex).splitlines()[0]} Delete it and run `nla data` again.") from ex
        missing = [name for name in (VECTOR, *columns) if name not in table.column_names]
        if missing:
            raise DataError(f"{path} has no column {', '.join(missing)} (found: {', '.join(table.column_names)}).")
        flat = pa.compute.list_flatten(table[VECTOR]).to_numpy().astype(np.float32)
        if flat.size != table.num_rows * first.d_model:
            raise DataError(f"{path} has vectors of ragged width; expected {first.d_model} numbers a row.")
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
