"""Directions in the residual stream, one per layer: contrasts of text pairs, random directions, and directions from files.

The contrastive vector of the paper is the difference of the residual stream at the final token, after every block, between a prompt that
says the Assistant is being tested and one that says it is not. A direction is a tensor `[n_layers, d_model]` whose row K belongs to the
output of decoder block K (0-based). The contrast sets of the probes, the unrelated ones among them, give directions in the same way.
"""

import functools
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from nla.activations.capture import batches, check_length, network_inputs
from nla.activations.contrast_sets import TESTING, contrast_names, read_contrast
from nla.activations.hooks import collecting
from nla.models.loaded import LoadedModel, exclusive
from nla.support.display import visible
from nla.support.errors import ConfigError, first_line, near_name
from nla.support.paths import user_path
from nla.support.seeds import seeded_generator

AWARENESS = "awareness"
"""The steering vector of the paper: the direction of its one pair, which is the contrast set `testing`."""
_KEY = "directions"
_MOST_PAIRS = 10_000
_MOST_BYTES = 64 * 2**20
"""Size limit of a file of pairs."""


def directions_of(model: LoadedModel, name: str) -> Float[Tensor, "n_layers d_model"]:
    """Return the directions that a name refers to (see `nla.activations.steering.steered`).

    Raises:
        ConfigError: the name is unknown, the file cannot be read, or its directions belong to a model of another width or depth.
    """
    if name.startswith("random-"):
        return _random_like(directions_of(model, AWARENESS), name)
    if name == AWARENESS or name in contrast_names():
        shipped = read_contrast(TESTING if name == AWARENESS else name)
        return contrast(model, shipped.pairs, shipped.vector)
    try:
        path = user_path(name)
        is_file = path.is_file()
    except (OSError, RuntimeError, ValueError):  # no valid path: too long, unknown `~user`, null character
        is_file = False
    if is_file and path.suffix == ".jsonl":
        return contrast(model, *read_pairs(path))
    if is_file and path.suffix == ".safetensors":
        return _read_directions(path, model)
    raise ConfigError(
        f"Steering direction '{visible(name, limit=200)}' is unknown; expected awareness, random-SEED, a contrast set "
        f"({', '.join(contrast_names())}), a file of prompt pairs (.jsonl) or a file of directions (.safetensors)."
        f"{near_name(name, [AWARENESS, *contrast_names()])}"
    )


@functools.lru_cache(maxsize=64)
def contrast(model: LoadedModel, pairs: tuple[tuple[str, str], ...], vector: str = "last") -> Float[Tensor, "n_layers d_model"]:
    """Return the contrastive vector of text pairs: the mean over the pairs of the difference of activations, after every block.

    Args:
        model: the model.
        pairs: positive and negative text of each pair.
        vector: the activation that stands for a text: of its final token (`last`), or the mean over its tokens without the first (`mean`).

    Raises:
        ConfigError: the texts do not differ at the middle layer, or a text is empty or longer than the context window.
    """
    if vector == "last":
        mean = torch.stack(
            [_all_layers(model, positive)[:, -1] - _all_layers(model, negative)[:, -1] for positive, negative in pairs]
        ).mean(0)
    else:
        positive, negative = (_token_means(model, [pair[side] for pair in pairs]) for side in (0, 1))
        mean = positive - negative
    if not float(mean[middle_layer(model)].norm()) >= 1e-6:  # also true for NaN
        raise ConfigError("The prompt pairs do not differ inside the model, so they give no direction; use other pairs.")
    return mean


def middle_layer(model: LoadedModel) -> int:
    """Return the layer at which the unit of steering is defined: K = n_layers // 2."""
    return model.n_layers // 2


@exclusive
@torch.no_grad()
def _token_means(model: LoadedModel, texts: Sequence[str]) -> Float[Tensor, "n_layers d_model"]:
    """Return the mean over texts of the mean activation over a text's tokens, after every block. The first token is left out.

    Texts run in batches of similar lengths (padded on the right), which takes a quarter of the time of one by one.
    """
    rows = [list(model.tokenizer.encode(text)) for text in texts]
    total = torch.zeros(model.n_layers, model.d_model)
    for numbers, ids in batches(model, rows):
        with collecting(model.blocks) as streams:
            model.network(**network_inputs(model, ids), logits_to_keep=1)
        for layer, stream in enumerate(streams):
            for i, row in zip(numbers, stream.float().cpu(), strict=True):
                total[layer] += row[min(1, len(rows[i]) - 1) : len(rows[i])].mean(dim=0)
    return total / len(rows)


@functools.lru_cache(maxsize=16)
def mean_activation_norm(model: LoadedModel) -> float:
    """Return the mean norm of the residual stream after the middle block (K = n_layers // 2) over the tokens of the paper's pair.

    The first token of each prompt is left out, because in most models its norm is many times that of other tokens.
    """
    middle, [texts] = middle_layer(model), read_contrast(TESTING).pairs
    return float(torch.cat([_all_layers(model, text)[middle, 1:].norm(dim=-1) for text in texts]).mean())


@exclusive
@torch.no_grad()
def _all_layers(model: LoadedModel, text: str) -> Float[Tensor, "n_layers pos d_model"]:
    ids = list(model.tokenizer.encode(text))
    check_length(model, len(ids))
    with collecting(model.blocks) as streams:
        model.network(input_ids=torch.tensor([ids], device=model.device), use_cache=False, logits_to_keep=1)
    return torch.stack([stream[0].float().cpu() for stream in streams])


def _random_like(directions: Float[Tensor, "n_layers d_model"], name: str) -> Float[Tensor, "n_layers d_model"]:
    """Return a random direction per layer, with the norm of the given direction of that layer."""
    seed = name.removeprefix("random-")
    if not re.fullmatch(r"[0-9]{1,18}", seed):
        raise ConfigError(
            f"Steering direction '{visible(name, limit=80)}' is unknown; a random direction is random-SEED, "
            "where SEED is a whole number of at most 18 digits, e.g. random-1."
        )
    draws = seeded_generator("steering", int(seed)).standard_normal(tuple(directions.shape)).astype(np.float32)
    random: Tensor = nn.functional.normalize(torch.from_numpy(draws), dim=-1) * directions.norm(dim=-1, keepdim=True)
    return random


def read_pairs(path: Path) -> tuple[tuple[tuple[str, str], ...], str]:
    """Read prompt pairs from a JSONL file whose rows have the texts `positive` and `negative`.

    A first row with neither text is the header of a contrast set (`nla.activations.contrast_sets`).

    Returns:
        The pairs, and the activation that stands for a text: `last` or `mean`, as the header says; `last` where there is none.

    Raises:
        ConfigError: the file cannot be read, is too large or has no pair, or a row lacks one of the texts.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"{path.stat().st_size:,} bytes, at most {_MOST_BYTES:,} are read")
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # not splitlines(): texts may hold other line separators
        rows = [json.loads(line) for line in lines if line.strip()]
        vector = _vector_of_header(rows)
        pairs = tuple(_pair(row) for row in (rows[1:] if vector else rows))
    except (OSError, ValueError, RecursionError) as ex:
        raise ConfigError(
            f"{visible(path)} cannot be read as prompt pairs ({visible(first_line(ex))}); "
            'expected one JSON object per line with the texts "positive" and "negative".'
        ) from ex
    if not 0 < len(pairs) <= _MOST_PAIRS:
        raise ConfigError(f"{visible(path)} holds {len(pairs):,} prompt pairs; expected 1 to {_MOST_PAIRS:,}.")
    return pairs, vector or "last"


def _vector_of_header(rows: list[object]) -> str:
    """Return the `vector` of the header of a contrast set; empty if the first row is a pair."""
    header = rows[0] if rows else None
    if not isinstance(header, dict) or "vector" not in header or header.keys() & {"positive", "negative"}:
        return ""
    if header["vector"] not in ("last", "mean"):
        raise ValueError("its header has another vector than last or mean")
    return str(header["vector"])


def _pair(row: object) -> tuple[str, str]:
    texts = [row.get(key) if isinstance(row, dict) else None for key in ("positive", "negative")]
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise ValueError("a row lacks one of the two texts")
        text.encode("utf-8")  # a lone surrogate raises UnicodeEncodeError, which is a ValueError
    return str(texts[0]), str(texts[1])


def _read_directions(path: Path, model: LoadedModel) -> Float[Tensor, "n_layers d_model"]:
    expected = [model.n_layers, model.d_model]
    try:
        with safe_open(path, "pt") as file:
            shapes = {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            tensor: Tensor | None = file.get_tensor(_KEY) if shapes.get(_KEY) == expected else None
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as ex:
        raise ConfigError(f"{visible(path)} cannot be read as safetensors ({visible(first_line(ex))}); write the file again.") from ex
    if tensor is None or not tensor.is_floating_point() or not bool(tensor.float().isfinite().all()):
        raise ConfigError(
            f"{visible(path)} holds {visible(shapes, limit=200)}; expected finite floating-point numbers '{_KEY}' of shape {expected} "
            f"for {model.source.name}."
        )
    read: Tensor = tensor.float()
    return read
