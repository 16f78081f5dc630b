"""Contrast probes: a direction in the residual stream from pairs of texts, and projections of vectors on it.

A set is a JSONL file: a header line (`name`, `about`, `vector`, `source`), then lines with `positive` and `negative`. The direction is the
mean difference of the activations, at unit length, at one layer K (the output of decoder block K, 0-based). Source: the contrastive vector
of the NLA paper (one pair, last token); Claude Mythos 5 system card 6.5.1 (larger sets). Where a set says `mean`, the activation of a text
is the mean over its tokens without the first, whose norm is many times that of the others.
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nla.activations.capture import residual_stream
from nla.activations.directions import AWARENESS_PAIR
from nla.models.loaded import LoadedModel
from nla.support.display import visible
from nla.support.errors import ConfigError, DataError, near_name
from nla.support.paths import user_path
from nla.support.rows import read_file

CONTRASTS = Path(__file__).parent / "contrasts"
"""The project's own sets, by file name."""
TESTING = "testing"
"""The paper's one pair, read at the last token."""


@dataclass(frozen=True)
class ContrastSet:
    """Pairs of texts that differ in one thing."""

    name: str
    pairs: tuple[tuple[str, str], ...]
    """Positive and negative text of each pair."""
    vector: Literal["last", "mean"]
    """Which activation stands for a text: that of its last token, or the mean over its tokens."""


def contrast_names() -> list[str]:
    """Return the names of the project's own sets."""
    return sorted([TESTING, *(path.stem for path in CONTRASTS.glob("*.jsonl"))])


def read_contrast(name: str) -> ContrastSet:
    """Read a contrast set.

    Args:
        name: a name of `contrast_names`, or the path of a JSONL file.

    Raises:
        ConfigError: there is no such set or file.
        DataError: the file has no pairs, or a pair has an empty side or the same text on both sides.
    """
    if name == TESTING:
        return ContrastSet(TESTING, (AWARENESS_PAIR,), "last")
    path = CONTRASTS / f"{name}.jsonl" if name in contrast_names() else user_path(name)
    if not path.is_file():
        raise ConfigError(
            f"There is no contrast set '{visible(name, limit=100)}'; expected one of {', '.join(contrast_names())}, or a JSONL file."
            f"{near_name(name, contrast_names())}"
        )
    rows = read_file(path)
    header = rows[0] if rows and "positive" not in rows[0] and "negative" not in rows[0] else {}
    vector = header.get("vector", "mean")
    if vector not in ("last", "mean"):
        raise DataError(f"{visible(path)} has vector {visible(repr(vector), limit=60)}; expected last or mean.")
    pairs = tuple(_pair(row, path, number) for number, row in enumerate(rows, start=1) if row is not header)
    if not pairs:
        raise DataError(f"{visible(path)} holds no pair; expected lines with the texts positive and negative.")
    return ContrastSet(path.stem, pairs, vector)


def _pair(row: dict[str, Any], path: Path, number: int) -> tuple[str, str]:
    texts = [row.get(side) for side in ("positive", "negative")]
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise DataError(f"{visible(path)}, row {number} lacks a side; expected the texts positive and negative.")
    if texts[0] == texts[1]:
        raise DataError(f"{visible(path)}, row {number} has the same text on both sides, which gives no direction.")
    return str(texts[0]), str(texts[1])


@functools.lru_cache(maxsize=64)
def direction(model: LoadedModel, contrast: ContrastSet, layer: int) -> Float[Tensor, " d_model"]:
    """Return a set's direction at layer K: unit length, float32, on the CPU.

    Raises:
        ConfigError: the model has no such layer, the texts do not differ inside the model, or a text is longer than its context window.
    """
    differences = [_activation(model, a, layer, contrast.vector) - _activation(model, b, layer, contrast.vector) for a, b in contrast.pairs]
    mean = torch.stack(differences).mean(dim=0)
    if not float(mean.norm()) >= 1e-6:  # also true for NaN
        raise ConfigError(f"The pairs of the contrast set {visible(contrast.name)} do not differ inside the model; use other pairs.")
    return nn.functional.normalize(mean, dim=0)


def _activation(model: LoadedModel, text: str, layer: int, vector: str) -> Float[Tensor, " d_model"]:
    ids = list(model.tokenizer.encode(text))
    stream = residual_stream(model, ids, layer).cpu()
    return stream[-1] if vector == "last" or len(ids) < 2 else stream[1:].mean(dim=0)


def projections(vectors: Float[Tensor, "n d_model"], unit_direction: Float[Tensor, " d_model"]) -> Float[Tensor, " n"]:
    """Return the projection of raw vectors on a direction of unit length, in the residual stream's own units."""
    return vectors.float() @ unit_direction
