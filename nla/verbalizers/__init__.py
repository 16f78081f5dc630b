"""Verbalizers turn residual-stream vectors into text. Each is a module here with a `build` function, found by its name."""

import functools
import importlib
import pkgutil

from nla.errors import ConfigError
from nla.model import LoadedModel
from nla.verbalizers.base import Verbalizer

_NOT_VERBALIZERS = {"base"}


def verbalizer_names() -> list[str]:
    """Names a user can give as `-T verbalizer=NAME`."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in _NOT_VERBALIZERS)


@functools.lru_cache(maxsize=8)
def verbalizer_for(name: str, model: LoadedModel, layer: int | None = None, nla: str | None = None) -> Verbalizer:
    """The verbalizer of that name for vectors of one layer of a model, built once.

    Args:
        name: module of this package.
        model: the model whose vectors are explained.
        layer: K; None takes the verbalizer's own (a trained pair reads one layer only) or two thirds of the depth.
        nla: which trained pair, for verbalizers that are one (folder or hub id).

    Raises:
        ConfigError: there is none of that name, or no such layer.
        ContractError: a pair that does not fit the model.
    """
    if name not in verbalizer_names():
        raise ConfigError(f"no verbalizer named '{name}'; there are: {', '.join(verbalizer_names())}.")
    module = importlib.import_module(f"{__name__}.{name}")
    built: Verbalizer = module.build(model, layer, nla)
    return built
