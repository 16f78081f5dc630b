"""Steering: a vector added to the residual stream after every block, at prompt and response tokens alike.

Unit of the strength: at strength 1, the vector that is added after the middle block (K = n_layers // 2) is as long as the residual stream
is there on average (`mean_activation_norm`). All layers share one factor, so the relative norms of the layers' directions stay as they are:
after block l, `strength * c * d_l / |d_middle|` is added, where c is that mean norm and d the directions of `nla.activations.directions`.
The first version added `strength * d_l` (unit `contrast`), which still reads the logs that it made.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from nla.activations.directions import directions_of, mean_activation_norm, middle_layer
from nla.activations.hooks import hidden_of
from nla.activations.projection import project_out
from nla.instrument import CONTRAST, MEAN_NORM, STEER_UNITS
from nla.models.adapters import shared_copy
from nla.models.loaded import LoadedModel
from nla.support.display import visible
from nla.support.errors import ConfigError

_NUMBER = re.compile(r"[+-]?([0-9]{1,12}\.?[0-9]{0,12}|\.[0-9]{1,12})([eE][+-]?[0-9]{1,2})?")
_STRONGEST = 10_000
"""Larger strengths would only exceed the range of the model's dtype."""
_SHORTEST = 1e-6
"""Norm below which a direction has no meaning."""


@dataclass(frozen=True)
class Steering:
    """A steering of a model: `strength * scale * directions[l]` is added after block l."""

    name: str
    strength: float
    directions: Float[Tensor, "n_layers d_model"]
    """Raw directions (float32)."""
    unit: str
    """Unit of the strength, one of `STEER_UNITS`."""
    scale: float
    """The factor that all layers share at strength 1."""

    @property
    def spec(self) -> str:
        """The specification in the form in which a user gives it, `NAME:STRENGTH`."""
        return f"{self.name}:{self.strength:+g}"

    @property
    def added(self) -> Float[Tensor, "n_layers d_model"]:
        """The vector that is added after each block."""
        return self.strength * self.scale * self.directions

    @property
    def identity(self) -> tuple[str, str, str]:
        """What two equal steerings of one model have in common: specification, unit and digest."""
        return self.spec, self.unit, self.digest

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
            f"{_STRONGEST}, e.g. awareness:-0.02, unrelated-1:-0.02 or vector.safetensors:+0.1."
        )
    return name, float(number)


def steering_of(model: LoadedModel, spec: str, unit: str = MEAN_NORM) -> Steering:
    """Return the steering that a specification means for a model; the arguments are those of `steered`.

    Raises:
        ConfigError: the unit is unknown, the directions vanish at the middle layer, or one of the reasons given for `steered`.
    """
    if unit not in STEER_UNITS:
        raise ConfigError(f"Invalid unit of steering '{visible(unit, limit=60)}': expected {' or '.join(STEER_UNITS)}.")
    name, strength = parse_steer(spec)
    directions = directions_of(model, name)
    if unit == CONTRAST:
        return Steering(name, strength, directions, unit, 1.0)
    length = float(directions[middle_layer(model)].norm())
    if length < _SHORTEST:
        raise ConfigError(
            f"The direction {visible(name, limit=100)} is zero at the middle layer {middle_layer(model)}, where the unit of the strength "
            f"is defined; give a direction there, or the strength as a multiple of the direction itself (-M steer_unit={CONTRAST})."
        )
    return Steering(name, strength, directions, unit, mean_activation_norm(model) / length)


def steered(model: LoadedModel, spec: str, unit: str = MEAN_NORM) -> LoadedModel:
    """Return a steered view of a model. It shares the weights, and other users of the model are not affected.

    Args:
        model: the model.
        spec: `NAME:STRENGTH`. NAME is `awareness` (the paper's contrast), `random-SEED` (a random direction per layer, with the norms of
            `awareness`), a contrast set such as `unrelated-1`, a `.jsonl` file of prompt pairs (`positive`, `negative`), or a
            `.safetensors` file with the tensor `directions` `[n_layers, d_model]`. A strength of 0 returns the model itself.
        unit: unit of the strength, one of `STEER_UNITS`.

    Raises:
        ConfigError: the name is unknown, the file cannot be read, or its directions belong to a model of another width or depth.
    """
    if parse_steer(spec)[1] == 0:
        return model
    steering = steering_of(model, spec, unit)
    view = shared_copy(model)
    view.steering = steering
    view.unsteered = model
    for block, vector in zip(view.blocks, steering.added, strict=True):
        block.register_forward_hook(_adding_hook(vector))
    return view


def _adding_hook(vector: Float[Tensor, " d_model"]) -> Callable[..., Any]:
    """Return a forward hook that adds a vector to the output of a block."""

    def hook(_module: nn.Module, _inputs: object, output: Any) -> Any:
        hidden = hidden_of(output)
        steered_hidden = hidden + vector.to(hidden)
        return (steered_hidden, *output[1:]) if isinstance(output, tuple) else steered_hidden

    return hook


@contextmanager
def steer(model: LoadedModel, spec: str, unit: str = MEAN_NORM) -> Iterator[LoadedModel]:
    """Steer a model inside a `with` block. All code that uses the model inside the block uses the steered model.

    Verbalizers are made from `model.plain`, which is never steered. Other threads must not use the model inside the block.

    Args:
        model: the model, which must not be steered yet.
        spec: `NAME:STRENGTH`, see `steered`.
        unit: unit of the strength, one of `STEER_UNITS`.

    Raises:
        ConfigError: the model is already steered, or one of the reasons given for `steered`.
    """
    if model.steering is not None:
        raise ConfigError(f"{model.source.name} is already steered by {model.steering.spec}; steer the unsteered model (`model.plain`).")
    if parse_steer(spec)[1] == 0:
        yield model
        return
    steering = steering_of(model, spec, unit)
    model.unsteered, model.steering = shared_copy(model), steering
    hooks = [_adding_hook(vector) for vector in steering.added]
    handles = [block.register_forward_hook(hook) for block, hook in zip(model.blocks, hooks, strict=True)]
    try:
        yield model
    finally:
        for handle in handles:
            handle.remove()
        model.unsteered = model.steering = None
