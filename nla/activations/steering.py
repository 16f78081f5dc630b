"""Steering: a vector added to the residual stream after every block, at prompt and response tokens alike.

The contrastive vector of the paper is the difference of the residual stream at the final token, at every layer, between a prompt
that says the Assistant is being tested and one that says it is not. All layers are divided by one constant, the mean activation
norm c at the middle layer, and strength s adds s times that vector in the unit c, which is s times the plain difference: the
layers keep their relative sizes, and strength 1 adds the whole contrast after every block. `relative_size` says how large that is.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn

from nla.activations.directions import directions_of
from nla.models.adapters import shared_copy
from nla.models.loaded import LoadedModel
from nla.support.errors import ConfigError


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
