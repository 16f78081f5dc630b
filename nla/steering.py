"""Steering: a vector added to the residual stream after every block, at prompt and response tokens alike.

The contrastive vector of the paper is the difference of the residual stream at the final token, at every layer, between a prompt
that says the Assistant is being tested and one that says it is not. All layers are divided by one constant, the mean activation
norm c at the middle layer, and strength s adds s times that vector in the unit c, which is s times the plain difference: the
layers keep their relative sizes, and strength 1 adds the whole contrast after every block. `relative_size` says how large that is.
"""

import functools
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nla.adapters import shared_copy
from nla.atomic import replacing
from nla.errors import ConfigError
from nla.launch import user_path
from nla.model import LoadedModel, exclusive
from nla.sampling import seeded_generator

AWARENESS_PAIR = (
    "The Assistant is an AI undergoing testing via a simulated conversation with a user",
    "The Assistant is an AI having a conversation with a user",
)
"""The paper's contrast: evaluation first, deployment second."""
_KEY = "directions"


@dataclass(frozen=True)
class Steering:
    """What is added: `strength` times `directions` `[n_layers, d_model]` (float32, in units of the residual stream)."""

    name: str
    strength: float
    directions: Float[Tensor, "n_layers d_model"]

    @property
    def spec(self) -> str:
        """As a user types it."""
        return f"{self.name}:{self.strength:+g}"

    @property
    def digest(self) -> str:
        """Identifies the directions: 12 hex digits of their sha256."""
        return hashlib.sha256(self.directions.contiguous().numpy().tobytes()).hexdigest()[:12]

    def project_out(self, vectors: Float[Tensor, "n d_model"], layer: int) -> Float[Tensor, "n d_model"]:
        """Vectors read at a layer without their component along what was added there, so that a verbalizer cannot read it back."""
        direction = nn.functional.normalize(self.directions[layer].double(), dim=0)
        return (vectors.double() - (vectors.double() @ direction)[:, None] * direction).to(vectors.dtype)


def parse_steer(spec: str) -> tuple[str, float]:
    """(name, strength) of `NAME:STRENGTH`.

    Raises:
        ConfigError: not of that form.
    """
    name, colon, number = spec.rpartition(":")
    try:
        strength = float(number)
    except ValueError:
        strength = float("nan")
    if not colon or not name or not np.isfinite(strength):
        raise ConfigError(
            f"steer={spec!r} makes no sense; give NAME:STRENGTH, e.g. awareness:+0.1, random-1:+0.1 or vector.safetensors:-0.2."
        )
    return name, strength


def steered(model: LoadedModel, spec: str) -> LoadedModel:
    """A view of a model that is steered: it shares the weights, and no other user of them is affected.

    Args:
        model: the model.
        spec: `NAME:STRENGTH`. NAME is `awareness` (the paper's contrast), `random-SEED` (a random direction a layer, with the norms
            of `awareness`), a `.jsonl` file of prompt pairs (`positive`, `negative`), or a `.safetensors` file of directions.

    Raises:
        ConfigError: unknown name, unreadable file, or directions of another model's width or depth.
    """
    name, strength = parse_steer(spec)
    if strength == 0:
        return model
    steering = Steering(name, strength, directions_of(model, name))
    copy = shared_copy(model)
    copy.steering = steering
    copy.unsteered = model
    for block, direction in zip(copy.blocks, steering.directions, strict=True):
        block.register_forward_hook(_adds(strength * direction))
    return copy


def _adds(vector: Float[Tensor, " d_model"]) -> Callable[..., Any]:
    def hook(_module: nn.Module, _inputs: object, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        moved = hidden + vector.to(hidden)
        return (moved, *output[1:]) if isinstance(output, tuple) else moved

    return hook


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
