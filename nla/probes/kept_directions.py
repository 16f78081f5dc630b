"""Contrast directions that took long to compute, kept in the user's cache: a command that starts anew finds them there.

A direction's file is named by a digest of everything that the direction depends on: all of the model's weights as they are in memory
(an adapter's among them), its config, the token ids of the texts, the layer, and the version of transformers. So another model, tokenizer
or contrast set has another name, and no file is ever out of date.
"""

import functools
import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import torch
import transformers
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from nla.models.loaded import LoadedModel
from nla.support.errors import DataError
from nla.support.files import replacing
from nla.support.wheels import cache_dir

_FORM = 1
"""To be raised whenever the way changes in which a direction is computed."""
_LONG = 1.0
"""Seconds of computing from which a direction is kept."""
_FEW_WEIGHTS = 10_000_000
"""The directions of smaller models are not worth a file."""


def kept_direction(
    model: LoadedModel, described: Sequence[object], compute: Callable[[], Float[Tensor, " d_model"]]
) -> Float[Tensor, " d_model"]:
    """Return a direction from the cache, or compute it and keep it there if that took long.

    Args:
        model: the model whose direction it is. A steered view is not looked up.
        described: what the direction is made from, beside the model: token ids, layer, kind of vector.
        compute: gives the direction.

    A cache that cannot be read or written is left alone.
    """
    if model.steering is not None or sum(tensor.numel() for tensor in model.network.parameters()) < _FEW_WEIGHTS:
        return compute()
    path = _path(model, described)
    with suppress(OSError, SafetensorError, KeyError):
        return load_file(path)["direction"]
    start = time.monotonic()
    direction = compute()
    if time.monotonic() - start >= _LONG:
        with suppress(OSError, DataError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as scratch:
                save_file({"direction": direction.contiguous()}, scratch)
    return direction


def _path(model: LoadedModel, described: Sequence[object]) -> Path:
    named = [_FORM, transformers.__version__, model.precision.name, str(model.device), model.network.config.to_json_string(), *described]
    digest = hashlib.sha256(f"{named} {weights_in_memory(model)}".encode()).hexdigest()
    return cache_dir() / "directions" / f"{digest[:32]}.safetensors"


@functools.lru_cache(maxsize=16)
def weights_in_memory(model: LoadedModel) -> str:
    """Return a digest of a model's weights as they are in memory: name, shape, first row, and the sum of the bits of every tensor.

    It takes as long as reading the memory once, and is done once per model.
    """
    digest = hashlib.sha256()
    with torch.inference_mode():
        for name, tensor in model.network.named_parameters():
            raw = tensor.detach().contiguous().view(torch.uint8).flatten()
            words = raw.view(torch.int32) if len(raw) % 4 == 0 and raw.data_ptr() % 4 == 0 else raw
            first = raw[:256].cpu().numpy().tobytes()
            digest.update(f"{name}{tuple(tensor.shape)}{int(words.sum(dtype=torch.int64))}".encode() + first)
    return digest.hexdigest()
