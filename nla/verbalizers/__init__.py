"""Verbalizers turn residual-stream vectors into text. Each is a module here with a `build` function, found by its name."""

import functools
import inspect
import threading

from nla.models.loaded import LoadedModel
from nla.support.errors import ConfigError
from nla.support.plugins import VERBALIZERS, split_spec
from nla.verbalizers.base import Verbalizer

_building = threading.Lock()


def verbalizer_for(spec: str, model: LoadedModel, layer: int | None = None, nla: str | None = None) -> Verbalizer:
    """The verbalizer of that name for vectors of one layer of a model, built once.

    Args:
        spec: module of this package, with options for one that takes any: `av:best_of=4`.
        model: the model whose vectors are explained.
        layer: K; None takes the verbalizer's own (a trained pair reads one layer only) or two thirds of the depth.
        nla: which trained pair, for verbalizers that are one (folder or hub id).

    Raises:
        ConfigError: there is none of that name, it has no such option, or there is no such layer.
        ContractError: a pair that does not fit the model.
    """
    with _building:  # several scorers may ask at once
        return _built(spec, model, layer, nla)


@functools.lru_cache(maxsize=8)
def _built(spec: str, model: LoadedModel, layer: int | None, nla: str | None) -> Verbalizer:
    name, options = split_spec(spec)
    build = VERBALIZERS.load(spec).build
    if options and not any(one.kind is one.VAR_KEYWORD for one in inspect.signature(build).parameters.values()):
        raise ConfigError(f"verbalizer '{name}' takes no options; found {', '.join(options)}.")
    built: Verbalizer = build(model, layer, nla, **options)
    return built
