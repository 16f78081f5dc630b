"""Which open weights are behind an Inspect model, so that the transcripts of any provider can be read."""

from collections.abc import Mapping
from typing import Any

from inspect_ai.model import Model

from nla.inspect.provider import LocalAPI
from nla.instrument import CONTRAST
from nla.models.loaded import LoadedModel, load_model
from nla.support.display import visible
from nla.support.errors import ModelError

WEIGHTS_BY_NAME = frozenset({"local", "hf", "vllm", "vllm-completions", "vllm-lens", "sglang", "transformer_lens", "nnterp"})
"""Providers whose model names are hub ids or folders, so that the weights behind a log can be found again."""

_STATE = (
    "dtype",
    "revision",
    "adapter_digest",
    "steer",
    "steer_unit",
    "steer_digest",
    "chat_template",
    "template_args",
    "n_layers",
    "d_model",
)
"""What `LoadedModel.describe` records about the state of the weights. Names and paths are left out, since files may be moved."""


def weights_behind(model: str) -> str | None:
    """The hub id, folder or alias in a log's model name (`hf/Qwen/Qwen2.5-7B-Instruct`); None if the provider hides its weights."""
    provider, _, weights = model.partition("/")
    return weights if provider in WEIGHTS_BY_NAME and weights else None


def weights_are_known(logged_model: str, name: str | None, active: Model) -> bool:
    """Whether `model_to_read` knows which open weights wrote a transcript; its arguments."""
    return name is not None or isinstance(active.api, LocalAPI) or weights_behind(logged_model) is not None


def model_to_read(logged_model: str, name: str | None, active: Model, recorded: Mapping[str, Any] | None = None) -> LoadedModel:
    """Load the open model whose residual stream is to be read.

    Args:
        logged_model: the model that wrote the transcript, as the log names it.
        name: a model named by the user; it takes precedence.
        active: Inspect's active model. A `local/` one is taken as it is loaded, with its dtype, device and steering.
        recorded: the metadata of the transcript's output.

    Raises:
        ModelError: nothing says which weights wrote the transcript, or it was steered in another unit than the active model.
    """
    if name is not None:
        return load_model(name)
    if isinstance(active.api, LocalAPI):
        _check_unit(recorded or {}, active.api.model)
        return active.api.model
    weights = weights_behind(logged_model)
    if weights is None:
        raise ModelError(
            f"The transcript's model is {logged_model}, which does not say what open weights wrote it, so its vectors cannot be read. Name "
            "the weights with --model local/NAME (inspect score) or -S model=NAME; without weights, take the measures that read none: "
            "-T measures=follow_up,verbalized."
        )
    return load_model(weights)


def unit_recorded(recorded: Mapping[str, Any]) -> str | None:
    """Return the unit of steering that a reply or score records (`LoadedModel.describe`); None if it records no steering.

    The first version, which knew one unit only, recorded none.
    """
    return str(recorded.get("steer_unit") or CONTRAST) if recorded.get("steer") else None


def _check_unit(recorded: Mapping[str, Any], model: LoadedModel) -> None:
    unit = unit_recorded(recorded)
    if unit is not None and model.steering is not None and model.steering.unit != unit:
        raise ModelError(
            f"The transcript was steered by {visible(recorded['steer'], limit=80)} in the unit {visible(unit, limit=40)}, and the model "
            f"that would read it in the unit {model.steering.unit}; score the log with `audit score`, which takes the unit from it."
        )


def other_state(recorded: Mapping[str, Any], model: LoadedModel) -> list[str]:
    """Return in what a model differs from the one that a reply records (`LoadedModel.describe`), as `NAME OLD -> NEW`; empty if in nothing.

    Args:
        recorded: the metadata of a model output. Metadata of other providers record nothing, and older logs not everything.
        model: the loaded model.
    """
    if "dtype_reason" not in recorded:  # not written by the `local/` provider
        return []
    now = model.describe()
    optional = dict.fromkeys(("chat_template", "template_args"))  # recorded only where they were changed
    before = optional | {name: recorded[name] for name in _STATE if name in recorded} | {"steer_unit": unit_recorded(recorded)}
    return [f"{name} {_shown(was)} -> {_shown(now.get(name))}" for name, was in before.items() if was != now.get(name)]


def _shown(value: Any) -> str:
    return visible(repr(value), limit=60)
