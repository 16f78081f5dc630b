"""Verbalizers turn residual-stream vectors into text. Each is a module of this package with a `build` function, looked up by name.

What reads activations belongs in `nla.activations`, the pair's files and checks in `nla.pair`, and grading of the text in `graders`.
"""

import functools
import threading

from nla.instrument import AUTO, Instrument
from nla.models.loaded import LoadedModel
from nla.pair.known import KNOWN, hub_id, layer_of_pair
from nla.support.plugins import VERBALIZERS
from nla.verbalizers.base import Verbalizer

_building = threading.Lock()


def verbalizer_for(spec: str, model: LoadedModel, layer: int | None = None, nla: str | None = None) -> Verbalizer:
    """Return the verbalizer with a name for vectors of one layer of a model. It is built once, and kept.

    Args:
        spec: module of this package, with options for a verbalizer that takes any: `av:best_of=4`.
        model: the model whose vectors are explained.
        layer: K; None takes the layer a trained pair was made for, and two thirds of the depth for an untrained verbalizer.
        nla: the trained pair (alias, folder or hub id), for verbalizers that use one.

    Raises:
        ConfigError: there is no verbalizer with this name, it has no such option, or the model has no such layer.
        ContractError: the pair does not fit the model.
    """
    with _building:  # several scorers may ask at once
        return _built(spec, model, layer, nla)


@functools.lru_cache(maxsize=8)
def _built(spec: str, model: LoadedModel, layer: int | None, nla: str | None) -> Verbalizer:
    built: Verbalizer = VERBALIZERS.build(spec, model, layer, nla)
    return built


def verbalizer_of(instrument: Instrument, model: LoadedModel) -> tuple[Verbalizer, str]:
    """The verbalizer an instrument asks for, and why it was taken.

    `auto` takes the AV if a pair was named or one is known for the model, and the logit lens, which needs no training, otherwise.

    Raises:
        ConfigError, ContractError: see `verbalizer_for`.
    """
    name, reason = _chosen(instrument, model)
    return verbalizer_for(name, model, instrument.layer, instrument.pair), reason


def layer_of(instrument: Instrument, model: LoadedModel) -> int:
    """K, the block that an instrument reads in a model: that of its verbalizer, which is not built for this.

    Raises:
        ConfigError, ContractError, FetchError: the model has no such layer, or the pair that gives it cannot be read.
    """
    name, _ = _chosen(instrument, model)
    if instrument.layer is None and getattr(VERBALIZERS.load(name), "NEEDS_PAIR", False):
        return layer_of_pair(model, instrument.pair)
    return model.check_layer(instrument.layer)


def _chosen(instrument: Instrument, model: LoadedModel) -> tuple[str, str]:
    """The name of the verbalizer that an instrument asks for, and why it is taken."""
    if instrument.verbalizer != AUTO:
        return instrument.verbalizer, "named by the user"
    if instrument.pair is not None:
        return "av", f"auto: the pair {instrument.pair} was named"
    if hub_id(model) in KNOWN:
        return "av", f"auto: a trained pair is known for {hub_id(model)}"
    return "logit_lens", f"auto: no trained pair is known for {model.source.name}"
