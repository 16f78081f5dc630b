"""Steering: a vector added to the residual stream after every block, at prompt and response tokens alike.

At strength s, the directions of `nla.activations.directions` are multiplied by s and added, so strength 1 adds the full contrast after
every block. The strength does not change the relative norms of the layers' directions.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from nla.activations.directions import directions_of
from nla.activations.hooks import hidden_of
from nla.activations.projection import project_out
from nla.models.adapters import shared_copy
from nla.models.loaded import LoadedModel
from nla.support.display import visible
from nla.support.errors import ConfigError

_NUMBER = re.compile(r"[+-]?([0-9]{1,12}\.?[0-9]{0,12}|\.[0-9]{1,12})([eE][+-]?[0-9]{1,2})?")
_STRONGEST = 10_000
"""Larger strengths would only exceed the range of the model's dtype."""


@dataclass(frozen=True)
class Steering:
    """A steering of a model: `strength` times `directions` `[n_layers, d_model]` (float32, in the unit of the residual stream) is added."""

    name: str
    strength: float
    directions: Float[Tensor, "n_layers d_model"]

    @property
    def spec(self) -> str:
        """The specification in the form in which a user gives it, `NAME:STRENGTH`."""
        return f"{self.name}:{self.strength:+g}"

    @property
    def digest(self) -> str:
        """Identifier of the directions: the first 12 hex digits of their sha256."""
        return hashlib.sha256(self.directions.contiguous().numpy().tobytes()).hexdigest()[:12]

    def project_out(self, vectors: Float[Tensor, "n d_model"], layer: int) -> Float[Tensor, "n d_model"]:
        """Return vectors that were read at a layer, without their component along the direction that was added there."""
        return project_out(vectors, self.directions[layer])


def parse_steer(spec: str) -> tuple[str, float]:
    """Return the name and the strength of `NAME:STRENGTH`.

    Raises:
        ConfigError: the specification has another form, or its strength is not between -10,000 and 10,000.
    """
    name, colon, number = spec.rpartition(":") if isinstance(spec, str) else ("", "", "")
    if not colon or not name or not _NUMBER.fullmatch(number) or abs(float(number)) > _STRONGEST:
        raise ConfigError(
            f"Invalid steering '{visible(spec, limit=200)}': expected NAME:STRENGTH with a strength between -{_STRONGEST} and "
            f"{_STRONGEST}, e.g. awareness:+0.1, random-1:+0.1 or vector.safetensors:-0.2."
        )
    return name, float(number)


def steered(model: LoadedModel, spec: str) -> LoadedModel:
    """Return a steered view of a model. It shares the weights, and other users of the model are not affected.

    Args:
        model: the model.
        spec: `NAME:STRENGTH`. NAME is `awareness` (the paper's contrast), `random-SEED` (a random direction per layer, with the norms of
            `awareness`), a `.jsonl` file of prompt pairs (`positive`, `negative`), or a `.safetensors` file with the tensor `directions`
            `[n_layers, d_model]`. A strength of 0 returns the model itself.

    Raises:
        ConfigError: the name is unknown, the file cannot be read, or its directions belong to a model of another width or depth.
    """
    name, strength = parse_steer(spec)
    if strength == 0:
        return model
    steering = Steering(name, strength, directions_of(model, name))
    view = shared_copy(model)
    view.steering = steering
    view.unsteered = model
    for block, direction in zip(view.blocks, steering.directions, strict=True):
        block.register_forward_hook(_adding_hook(strength * direction))
    return view


def _adding_hook(vector: Float[Tensor, " d_model"]) -> Callable[..., Any]:
    """Return a forward hook that adds a vector to the output of a block."""

    def hook(_module: nn.Module, _inputs: object, output: Any) -> Any:
        hidden = hidden_of(output)
        steered_hidden = hidden + vector.to(hidden)
        return (steered_hidden, *output[1:]) if isinstance(output, tuple) else steered_hidden

    return hook


@contextmanager
def steer(model: LoadedModel, spec: str) -> Iterator[LoadedModel]:
    """Steer a model inside a `with` block. All code that uses the model inside the block uses the steered model.

    Verbalizers are made from `model.plain`, which is never steered. Other threads must not use the model inside the block.

    Args:
        model: the model, which must not be steered yet.
        spec: `NAME:STRENGTH`, see `steered`.

    Raises:
        ConfigError: the model is already steered, or one of the reasons given for `steered`.
    """
    if model.steering is not None:
        raise ConfigError(f"{model.source.name} is already steered by {model.steering.spec}; steer the unsteered model (`model.plain`).")
    name, strength = parse_steer(spec)
    if strength == 0:
        yield model
        return
    steering = Steering(name, strength, directions_of(model, name))
    model.unsteered, model.steering = shared_copy(model), steering
    hooks = [_adding_hook(strength * direction) for direction in steering.directions]
    handles = [block.register_forward_hook(hook) for block, hook in zip(model.blocks, hooks, strict=True)]
    try:
        yield model
    finally:
        for handle in handles:
            handle.remove()
        model.unsteered = model.steering = None
