"""Verbalizers turn residual-stream vectors into text. Each is a module here with a `build` function, found by its name."""

import functools
import importlib

from nla.found import check_verbalizer_name
from nla.model import LoadedModel
from nla.verbalizers.base import Verbalizer


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
    check_verbalizer_name(name)
    module = importlib.import_module(f"{__name__}.{name}")
    built: Verbalizer = module.build(model, layer, nla)
    return built
