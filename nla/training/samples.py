"""The second stage, `nla train samples`: explanations that the AV itself writes for many vectors, for the AR to learn from.

In: raw vectors `[n, d_model]`. Out: one explanation per vector, in parquet files of 512 rows (`row`, `text`, `failure`) that a killed
run does not draw again. An AR that has seen only the teacher's explanations trusts quotations that the AV gets wrong.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float
from torch import Tensor

from nla.support.errors import DataError, first_line
from nla.support.files import replacing
from nla.verbalizers.base import Verbalizer

_SLICE = 512
"""Explanations per file."""


def draw_samples(
    verbalizer: Verbalizer,
    vectors: Float[Tensor, "n d_model"],
    rows: Sequence[int],
    folder: Path,
    name: str,
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Write one explanation for each row number; files that are already in the folder are not drawn again.

    Args:
        verbalizer: the AV.
        vectors: raw vectors of the whole data set.
        rows: row numbers of the vectors to explain.
        folder: existing folder for the files.
        name: name of the set, with which the file names and the keys of the random draws begin.
        say: receives one line of progress per file.

    Raises:
        DataError: a file cannot be written.
    """
    started = time.monotonic()
    for path, part in _slices(rows, folder, name):
        if path.exists():
            continue
        explanations = verbalizer.verbalize(vectors[part], [(name, row) for row in part])
        texts, failures = [e.text for e in explanations], [e.failure for e in explanations]
        with replacing(path) as scratch:
            pq.write_table(pa.table({"row": part, "text": texts, "failure": failures}), scratch)
        say(f"samples {path.stem}: {len(part)} explanations  {time.monotonic() - started:.0f} s")


def read_samples(rows: Sequence[int], folder: Path, name: str, *, with_failed: bool = False) -> dict[int, str]:
    """Return the explanations that did not fail, by row number; empty where they have not all been drawn.

    Args:
        rows: row numbers the explanations were drawn for, in the same order.
        folder: folder of the files.
        name: name of the set.
        with_failed: also return the text of failed ones, such as those that did not end.

    Raises:
        DataError: a file cannot be read, or belongs to other rows of the data.
    """
    samples: dict[int, str] = {}
    for path, part in _slices(rows, folder, name):
        if not path.exists():
            return {}
        try:
            columns = pq.read_table(path, columns=["row", "text", "failure"]).to_pydict()
        except (OSError, pa.ArrowException) as ex:
            raise DataError(f"{path} cannot be read: {first_line(ex)} Delete it and run `nla train samples` again.") from ex
        if columns["row"] != part:
            raise DataError(f"{path} holds explanations of other vectors: the data have changed. Delete {folder} and draw them again.")
        drawn = zip(part, columns["text"], columns["failure"], strict=True)
        samples |= {row: text for row, text, failure in drawn if with_failed or (text and not failure)}
    return samples


def _slices(rows: Sequence[int], folder: Path, name: str) -> list[tuple[Path, list[int]]]:
    """Return each file with the row numbers it holds."""
    return [(folder / f"{name}-{start:06d}.parquet", list(rows[start : start + _SLICE])) for start in range(0, len(rows), _SLICE)]
