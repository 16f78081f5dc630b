"""Directions in the residual stream, one per layer: contrasts of prompt pairs, random directions, and directions from files.

The contrastive vector of the paper is the difference of the residual stream at the final token, after every block, between a prompt that
says the Assistant is being tested and one that says it is not. A direction is a tensor `[n_layers, d_model]` whose row K belongs to the
output of decoder block K (0-based).
"""

import functools
import json
import re
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from nla.activations.capture import check_length
from nla.activations.hooks import collecting
from nla.models.loaded import LoadedModel, exclusive
from nla.support.display import visible
from nla.support.errors import ConfigError, first_line
from nla.support.paths import user_path
from nla.support.seeds import seeded_generator

AWARENESS_PAIR = (
    "The Assistant is an AI undergoing testing via a simulated conversation with a user",
    "The Assistant is an AI having a conversation with a user",
)
"""The paper's contrast: evaluation first, deployment second."""
_KEY = "directions"
_MOST_PAIRS = 10_000
_MOST_BYTES = 64 * 2**20
"""Size limit of a file of pairs."""


def directions_of(model: LoadedModel, name: str) -> Float[Tensor, "n_layers d_model"]:
    """Return the directions that a name refers to (see `nla.activations.steering.steered`).

    Raises:
        ConfigError: the name is unknown, the file cannot be read, or its directions belong to a model of another width or depth.
    """
    if name == "awareness":
        return contrast(model, (AWARENESS_PAIR,))
    if name.startswith("random-"):
        return _random_like(contrast(model, (AWARENESS_PAIR,)), name)
    try:
        path = user_path(name)
        is_file = path.is_file()
    except (OSError, RuntimeError, ValueError):  # no valid path: too long, unknown `~user`, null character
        is_file = False
    if is_file and path.suffix == ".jsonl":
        return contrast(model, read_pairs(path))
    if is_file and path.suffix == ".safetensors":
        return _read_directions(path, model)
    raise ConfigError(
        f"Steering direction '{visible(name, limit=200)}' is unknown; expected awareness, random-SEED, "
        "a file of prompt pairs (.jsonl) or a file of directions (.safetensors)."
    )


@functools.lru_cache(maxsize=16)
def contrast(model: LoadedModel, pairs: tuple[tuple[str, str], ...]) -> Float[Tensor, "n_layers d_model"]:
    """Return the contrastive vector of prompt pairs: the difference at the final token after every block, averaged over the pairs.

    Raises:
        ConfigError: the prompts do not differ at the middle layer, or a prompt is empty or longer than the context window.
    """
    differences = [_all_layers(model, positive)[:, -1] - _all_layers(model, negative)[:, -1] for positive, negative in pairs]
    mean = torch.stack(differences).mean(dim=0)
    if not float(mean[model.n_layers // 2].norm()) >= 1e-6:  # also true for NaN
        raise ConfigError("The prompt pairs do not differ inside the model, so they give no direction; use other pairs.")
    return mean


@functools.lru_cache(maxsize=16)
def mean_activation_norm(model: LoadedModel) -> float:
    """Return the mean norm of the residual stream after the middle block (K = n_layers // 2) over the tokens of `AWARENESS_PAIR`.

    The first token of each prompt is left out, because in most models its norm is many times that of other tokens.
    """
    middle = model.n_layers // 2
    return float(torch.cat([_all_layers(model, text)[middle, 1:].norm(dim=-1) for text in AWARENESS_PAIR]).mean())


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


def read_pairs(path: Path) -> tuple[tuple[str, str], ...]:
    """Read prompt pairs from a JSONL file whose rows have the texts `positive` and `negative`.

    Raises:
        ConfigError: the file cannot be read, is too large or has no row, or a row lacks one of the texts.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"{path.stat().st_size:,} bytes, at most {_MOST_BYTES:,} are read")
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # not splitlines(): texts may hold other line separators
        pairs = tuple(_pair(json.loads(line)) for line in lines if line.strip())
    except (OSError, ValueError, RecursionError) as ex:
        raise ConfigError(
            f"{visible(path)} cannot be read as prompt pairs ({visible(first_line(ex))}); "
            'expected one JSON object per line with the texts "positive" and "negative".'
        ) from ex
    if not 0 < len(pairs) <= _MOST_PAIRS:
        raise ConfigError(f"{visible(path)} holds {len(pairs):,} prompt pairs; expected 1 to {_MOST_PAIRS:,}.")
    return pairs


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
