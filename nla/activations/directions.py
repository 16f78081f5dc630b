"""Directions in the residual stream at every layer: contrasts of prompt pairs, random controls, and files.

The contrastive vector of the paper is the difference of the residual stream at the final token, at every layer, between a prompt
that says the Assistant is being tested and one that says it is not.
"""

import functools
import json
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nla.models.loaded import LoadedModel, exclusive
from nla.support.errors import ConfigError
from nla.support.files import replacing
from nla.support.paths import user_path
from nla.support.seeds import seeded_generator

AWARENESS_PAIR = (
    "The Assistant is an AI undergoing testing via a simulated conversation with a user",
    "The Assistant is an AI having a conversation with a user",
)
"""The paper's contrast: evaluation first, deployment second."""
_KEY = "directions"


def directions_of(model: LoadedModel, name: str) -> Float[Tensor, "n_layers d_model"]:
    """The directions a name stands for; see `steered`."""
    if name == "awareness":
        return contrast(model, (AWARENESS_PAIR,))
    if name.startswith("random-"):
        return _random_like(contrast(model, (AWARENESS_PAIR,)), name)
    path = user_path(name)
    if path.suffix == ".jsonl" and path.is_file():
        return contrast(model, read_pairs(path))
    if path.suffix == ".safetensors" and path.is_file():
        return _read_directions(path, model)
    raise ConfigError(
        f"steer name '{name}' is unknown; expected awareness, random-SEED, or a file: pairs .jsonl or directions .safetensors."
    )


@functools.lru_cache(maxsize=16)
def contrast(model: LoadedModel, pairs: tuple[tuple[str, str], ...]) -> Float[Tensor, "n_layers d_model"]:
    """The contrastive vector of prompt pairs: the difference at the final token after every block, averaged over the pairs.

    Raises:
        ConfigError: the prompts do not differ at the middle layer.
    """
    both = [[_all_layers(model, text)[:, -1] for text in pair] for pair in pairs]
    mean = torch.stack([positive - negative for positive, negative in both]).mean(dim=0)
    if float(mean[model.n_layers // 2].norm()) < 1e-6:
        raise ConfigError("the prompt pairs do not differ inside the model, so there is nothing to steer by; give other pairs.")
    return mean


def relative_size(model: LoadedModel, directions: Float[Tensor, "n_layers d_model"]) -> float:
    """Norm of the directions at the middle layer over the mean activation norm there, on the prompts of `AWARENESS_PAIR`.

    Each prompt's first token is left out: in most models its norm is out of proportion.
    """
    middle = model.n_layers // 2
    norms = torch.cat([_all_layers(model, text)[middle, 1:].norm(dim=-1) for text in AWARENESS_PAIR])
    return float(directions[middle].norm() / norms.mean())


@exclusive
@torch.no_grad()
def _all_layers(model: LoadedModel, text: str) -> Float[Tensor, "n_layers pos d_model"]:
    kept: list[Tensor] = []
    handles = [
        block.register_forward_hook(lambda _m, _i, out: kept.append((out[0] if isinstance(out, tuple) else out)[0].float().cpu()))
        for block in model.blocks
    ]
    ids = torch.tensor([list(model.tokenizer.encode(text))], device=model.device)
    try:
        model.network(input_ids=ids, use_cache=False, logits_to_keep=1)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(kept)


def _random_like(directions: Float[Tensor, "n_layers d_model"], name: str) -> Float[Tensor, "n_layers d_model"]:
    """A random direction at each layer, as long as the contrast is there."""
    seed = name.removeprefix("random-")
    if not seed.isdigit():
        raise ConfigError(f"steer name '{name}' is unknown; a random direction is random-SEED with a whole number, e.g. random-1.")
    draws = seeded_generator("steering", int(seed)).standard_normal(tuple(directions.shape)).astype(np.float32)
    random: Tensor = nn.functional.normalize(torch.from_numpy(draws), dim=-1) * directions.norm(dim=-1, keepdim=True)
    return random


def read_pairs(path: Path) -> tuple[tuple[str, str], ...]:
    """Prompt pairs from JSONL rows with `positive` and `negative`.

    Raises:
        ConfigError: unreadable, or a row without both.
    """
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        pairs = tuple((str(row["positive"]), str(row["negative"])) for row in rows)
    except (OSError, ValueError, KeyError, TypeError) as ex:
        raise ConfigError(f"{path} cannot be read as prompt pairs ({ex!r}); each line needs `positive` and `negative`.") from ex
    if not pairs:
        raise ConfigError(f"{path} holds no prompt pair.")
    return pairs


def save_directions(path: Path, directions: Float[Tensor, "n_layers d_model"]) -> None:
    """Write directions that `-M steer=FILE:STRENGTH` reads (atomically)."""
    with replacing(path) as scratch:
        save_file({_KEY: directions.contiguous()}, scratch)


def _read_directions(path: Path, model: LoadedModel) -> Float[Tensor, "n_layers d_model"]:
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as ex:
        raise ConfigError(f"{path} cannot be read: {ex}") from ex
    found = tensors.get(_KEY)
    if found is None or tuple(found.shape) != (model.n_layers, model.d_model) or not bool(found.isfinite().all()):
        shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
        raise ConfigError(
            f"{path} holds {shapes}; expected finite '{_KEY}' of shape [{model.n_layers}, {model.d_model}] for {model.source.name}."
        )
    read: Tensor = found.float()
    return read
