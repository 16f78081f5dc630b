"""The AV's own explanations of many vectors, drawn in slices that survive an interruption."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from nla.support.files import replacing
from nla.verbalizers.base import Verbalizer

_SLICE = 512


def draw_samples(
    verbalizer: Verbalizer | None,
    vectors: Float[Tensor, "n d_model"],
    rows: Sequence[int],
    folder: Path,
    name: str,
    say: Callable[[str], None] | None = None,
) -> list[str]:
    """One explanation for each row number given, empty where it failed; slices that lie in the folder are not drawn again.

    Args:
        verbalizer: the AV; None only reads what is there, and gives an empty list where anything is missing.
        vectors: all vectors, `[n, d_model]`.
        rows: which of them.
        folder: of the slices.
        name: of the set, the slices' file names.
        say: told one line a slice.
    """
    folder.mkdir(parents=True, exist_ok=True)
    texts: list[str] = []
    started = time.monotonic()
    for start in range(0, len(rows), _SLICE):
        part = list(rows[start : start + _SLICE])
        path = folder / f"{name}-{start:06d}.parquet"
        if not path.exists():
            if verbalizer is None:
                return []
            drawn = verbalizer.verbalize(vectors[part], [(name, row) for row in part])
            frame = pd.DataFrame({"row": part, "text": [one.text for one in drawn], "failure": [one.failure for one in drawn]})
            with replacing(path) as scratch:
                frame.to_parquet(scratch)
            if say is not None:
                say(f"samples {name} {start + len(part)}/{len(rows)}  {time.monotonic() - started:.0f} s")
        frame = pd.read_parquet(path)
        texts.extend(frame.text.where(frame.failure == "", ""))
    return texts
