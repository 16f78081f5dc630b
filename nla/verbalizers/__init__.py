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
def verbalizer_for(name: str, model: LoadedModel, layer: int) -> Verbalizer:
    """The verbalizer of that name for vectors of one layer of a model, built once.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in verbalizer_names():
        raise ConfigError(f"no verbalizer named '{name}'; there are: {', '.join(verbalizer_names())}.")
    module = importlib.import_module(f"{__name__}.{name}")
    built: Verbalizer = module.build(model, layer)
    return built
