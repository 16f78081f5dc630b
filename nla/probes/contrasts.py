"""Contrast probes: a direction in the residual stream from a contrast set, and projections of vectors on it.

The direction is the mean difference of the activations of a set's texts, at unit length, at one layer K (the output of decoder block K,
0-based). Source: the contrastive vector of the NLA paper (one pair, last token); Claude Mythos 5 system card 6.5.1 (larger sets). Where
a set says `mean`, the activation of a text is the mean over its tokens without the first, whose norm is many times that of the others.
"""

import functools
from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nla.activations.capture import streams
from nla.activations.contrast_sets import ContrastSet
from nla.models.loaded import LoadedModel, exclusive
from nla.probes.kept_directions import kept_direction
from nla.support.display import visible
from nla.support.errors import ConfigError

_FEW_PAIRS = 4
"""Directions of fewer pairs are computed sooner than they are found in the cache, whose key takes all of the model's weights."""


@exclusive
def direction(model: LoadedModel, contrast: ContrastSet, layer: int) -> Float[Tensor, " d_model"]:
    """Return a set's direction at layer K: unit length, float32, on the CPU.

    It is computed once per model: callers of other threads wait for it, because it runs in `LoadedModel.run`.

    Raises:
        ConfigError: the model has no such layer, the texts do not differ inside the model, or a text is longer than its context window.
    """
    return _direction(model, contrast, layer)


@functools.lru_cache(maxsize=256)
def _direction(model: LoadedModel, contrast: ContrastSet, layer: int) -> Float[Tensor, " d_model"]:
    sides = [[list(model.tokenizer.encode(pair[side])) for pair in contrast.pairs] for side in (0, 1)]
    compute = partial(_computed, model, contrast, sides, layer)
    return compute() if len(contrast.pairs) < _FEW_PAIRS else kept_direction(model, (sides, layer, contrast.vector), compute)


def _computed(model: LoadedModel, contrast: ContrastSet, sides: Sequence[list[list[int]]], layer: int) -> Float[Tensor, " d_model"]:
    positive, negative = (_activations(model, rows, layer, contrast.vector) for rows in sides)
    mean = (positive - negative).mean(dim=0)
    if not float(mean.norm()) >= 1e-6:  # also true for NaN
        raise ConfigError(f"The pairs of the contrast set {visible(contrast.name)} do not differ inside the model; use other pairs.")
    return nn.functional.normalize(mean, dim=0)


def _activations(model: LoadedModel, rows: Sequence[list[int]], layer: int, vector: str) -> Float[Tensor, "n d_model"]:
    """Return one activation per row of token ids (float32, on the CPU), in their order; they run in batches of similar lengths."""
    activations = torch.empty(len(rows), model.d_model)
    for i, stream in streams(model, rows, layer):
        activations[i] = stream[-1] if vector == "last" or len(stream) < 2 else stream[1:].mean(dim=0)
    return activations


def projections(vectors: Float[Tensor, "n d_model"], unit_direction: Float[Tensor, " d_model"]) -> Float[Tensor, " n"]:
    """Return the projection of raw vectors on a direction of unit length, in the residual stream's own units."""
    return vectors.float() @ unit_direction
