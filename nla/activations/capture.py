"""Residual-stream capture: the output of decoder block K at chosen tokens, by running blocks 0 to K and no further."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import DynamicCache

from nla.kernels.kv_cache import cache_argument
from nla.models.loaded import LoadedModel, exclusive
from nla.support.errors import ConfigError
from nla.transcripts.tokens import TokenRef, Transcript


class _ReachedLayerError(Exception):
    """Ends a forward pass once the wanted block has run."""


@exclusive
def residual_stream(model: LoadedModel, ids: Sequence[int], layer: int) -> Float[Tensor, "pos d_model"]:
    """The residual stream after block `layer` for a token sequence.

    Layer K is the output of decoder block K (0-based), before the final norm: transformers' `hidden_states[K + 1]`, except
    that for the last block transformers applies the final norm to that entry and this function does not.

    Args:
        model: the model.
        ids: token ids, with any BOS token already there.
        layer: K.

    Returns:
        float32, whatever the model computes in.

    Raises:
        ConfigError: no such block, no token, or more tokens than the context window holds.
    """
    layer = model.check_layer(layer)
    if not 0 < len(ids) <= model.max_positions:
        raise ConfigError(f"a sequence of {len(ids)} tokens cannot be read; {model.source.name} takes 1 to {model.max_positions}.")
    return block_output(model, torch.tensor([list(ids)]), layer)[0].float()


@exclusive
@torch.no_grad()
def block_output(
    model: LoadedModel, ids: Int[Tensor, "batch pos"], layer: int, before: DynamicCache | None = None
) -> Float[Tensor, "batch pos d_model"]:
    """Output of decoder block `layer` for a batch of token sequences, in the model's dtype; later blocks do not run.

    Rows may be padded on the right: attention is causal, so padding changes nothing before it. `before` holds the keys and values
    of what stands before every row (`shared_prefix`).
    """
    start = before.get_seq_length() if before is not None else 0
    positions = torch.arange(start, start + ids.shape[1], device=model.device)[None]
    cached = {} if before is None else cache_argument(model.network, before)
    with _stop_after(model.blocks[layer]) as reached:
        with suppress(_ReachedLayerError):
            model.network(input_ids=ids.to(model.device), position_ids=positions, use_cache=bool(cached), logits_to_keep=1, **cached)
        return reached[0]


@exclusive
def shared_prefix(model: LoadedModel, ids: Sequence[int], layer: int, rows: int) -> DynamicCache:
    """Keys and values of a beginning that `rows` sequences have in common, run once through blocks 0 to `layer`."""
    cache = DynamicCache(config=model.text_config)
    block_output(model, torch.tensor([list(ids)]), layer, cache)
    for one in cache.layers:
        if getattr(one, "is_initialized", False):
            one.keys = one.keys.expand(rows, -1, -1, -1)  # type: ignore[union-attr]
            one.values = one.values.expand(rows, -1, -1, -1)  # type: ignore[union-attr]
    return cache


@exclusive
def capture(model: LoadedModel, transcript: Transcript, tokens: Sequence[TokenRef], layer: int) -> Float[Tensor, "k d_model"]:
    """The residual stream after block `layer` at the given tokens of a transcript, in their order (float32, on the CPU).

    Raises:
        ConfigError: no such block, or a pass longer than the context window.
    """
    vectors: dict[TokenRef, Tensor] = {}
    for index, one in enumerate(transcript.passes):
        wanted = [token for token in tokens if token.pass_index == index]
        if wanted:
            # Nothing after the last wanted token can influence it.
            stream = residual_stream(model, one.ids[: max(token.position for token in wanted) + 1], layer).cpu()
            vectors.update({token: stream[token.position] for token in wanted})
    if not tokens:
        return torch.empty(0, model.d_model)
    return torch.stack([vectors[token] for token in tokens])


@contextmanager
def _stop_after(block: nn.Module) -> Iterator[list[Tensor]]:
    reached: list[Tensor] = []

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
        reached.append(output[0] if isinstance(output, tuple) else output)
        raise _ReachedLayerError

    handle = block.register_forward_hook(hook)
    try:
        yield reached
    finally:
        handle.remove()
