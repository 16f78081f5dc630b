"""Everything that touches weights: models, residual-stream capture and steering, autoencoder pairs, verbalizers, training.

Graders and scorers belong in `graders`; runs and statistics in `audit`. The public Python API is imported lazily:

    import nla

    pair = nla.load_pair("smollm2")
    explanations = pair.explain("The capital of France is")     # rows with token, position, explanation, cosine
    explanations.to_frame()
    with nla.steer(pair.base, "awareness:+0.02"):
        ...                                                     # everything that uses the model here is steered
    reading = nla.read_transcript(pair.base, messages, nla.Instrument(tokens=10))
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nla.activations.steering import steer
    from nla.api import Explanations, Pair, load_pair
    from nla.inspect.reading import Reading, read_transcript
    from nla.instrument import Instrument
    from nla.models.loaded import LoadedModel, load_model
    from nla.support.errors import HarnessError

__all__ = [
    "Explanations",
    "HarnessError",
    "Instrument",
    "LoadedModel",
    "Pair",
    "Reading",
    "load_model",
    "load_pair",
    "read_transcript",
    "steer",
]

_HOMES = {
    "Explanations": "nla.api",
    "HarnessError": "nla.support.errors",
    "Instrument": "nla.instrument",
    "LoadedModel": "nla.models.loaded",
    "Pair": "nla.api",
    "Reading": "nla.inspect.reading",
    "load_model": "nla.models.loaded",
    "load_pair": "nla.api",
    "read_transcript": "nla.inspect.reading",
    "steer": "nla.activations.steering",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'nla' has no attribute {name!r}; its public names are {', '.join(__all__)}.")
