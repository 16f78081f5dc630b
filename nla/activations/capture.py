"""Residual-stream capture: the output of decoder block K at chosen tokens. Only blocks 0 to K run.

Layer convention: layer K is the output of decoder block K (0-based), before the final norm. That is transformers' `hidden_states[K + 1]`,
except that transformers applies the final norm to the entry of the last block.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from nla.activations.hooks import ReachedBlockError, stopping_after
from nla.kernels.kv_cache import cache_argument, for_rows
from nla.kernels.padding import batches_by_length, common_beginning, right_padded
from nla.models.loaded import LoadedModel, exclusive
from nla.support.errors import ConfigError
from nla.transcripts.tokens import TokenRef, Transcript

BATCH_TOKENS = 4_096
"""Most tokens of a batch of whole sequences, padding included."""
_FEWEST_SHARED = 4
"""Fewest leading tokens that all rows of a batch must share before computing them only once saves time."""


@exclusive
def residual_stream(model: LoadedModel, ids: Sequence[int], layer: int) -> Float[Tensor, "pos d_model"]:
    """Return the residual stream after block `layer` for a token sequence, in float32.

    Args:
        model: the model.
        ids: token ids, including any BOS token.
        layer: the layer K.

    Raises:
        ConfigError: the model has no such block, or there is no token, or there are more tokens than the context window holds.
    """
    layer = model.check_layer(layer)
    check_length(model, len(ids))
    return block_output(model, torch.tensor([list(ids)]), layer)[0].float()


def check_length(model: LoadedModel, n_tokens: int) -> None:
    """Check that a sequence fits into a model's context window.

    Raises:
        ConfigError: there is no token, or there are too many.
    """
    if not 0 < n_tokens <= model.max_positions:
        raise ConfigError(
            f"A sequence of {n_tokens} tokens cannot be read; {model.source.name} takes 1 to {model.max_positions}. Shorten the text."
        )


@exclusive
@torch.no_grad()
def block_output(
    model: LoadedModel, ids: Int[Tensor, "batch pos"], layer: int, before: DynamicCache | None = None
) -> Float[Tensor, "batch pos d_model"]:
    """Return the output of decoder block `layer` for a batch of token sequences, in the model's dtype. Later blocks do not run.

    Args:
        model: the model.
        ids: token ids. Rows may be padded on the right: attention is causal, so padding does not affect the tokens before it.
        layer: the layer K.
        before: keys and values of the tokens that precede every row (`shared_prefix`).

    Raises:
        ConfigError: there are several rows, and they reach the length at which the model changes its rotary frequencies.
    """
    inputs = network_inputs(model, ids, before)
    with stopping_after(model.blocks[layer]) as reached:
        with suppress(ReachedBlockError):
            model.network(**inputs, logits_to_keep=1)
        return reached[0].to(model.device)  # the block may be on another GPU


def network_inputs(model: LoadedModel, ids: Int[Tensor, "batch pos"], before: DynamicCache | None = None) -> dict[str, Any]:
    """Return the arguments with which a network runs a batch of token sequences; see `block_output` for them.

    Raises:
        ConfigError: there are several rows, and they reach the length at which the model changes its rotary frequencies.
    """
    start = before.get_seq_length() if before is not None else 0
    end = start + ids.shape[1]
    if ids.shape[0] > 1 and model.rope_switch is not None and end > model.rope_switch:
        raise ConfigError(
            f"Rows of {end} tokens cannot be read together: {model.source.name} changes its rotary frequencies at "
            f"{model.rope_switch} tokens. Shorten the texts."
        )
    positions = torch.arange(start, end, device=model.device)[None]
    cached = {} if before is None else cache_argument(model.network, before)
    return {"input_ids": ids.to(model.device), "position_ids": positions, "use_cache": bool(cached), **cached}


def streams(model: LoadedModel, rows: Sequence[Sequence[int]], layer: int) -> Iterator[tuple[int, Float[Tensor, "pos d_model"]]]:
    """Yield the number of each token sequence with its residual stream after block `layer` (float32, on the CPU).

    Sequences run in batches of similar lengths, so they come in another order than they were given.

    Raises:
        ConfigError: the model has no such block, or a sequence is longer than the context window.
    """
    layer = model.check_layer(layer)
    for numbers, ids in batches(model, rows):
        output = block_output(model, ids, layer).float().cpu()
        for i, stream in zip(numbers, output, strict=True):
            yield i, stream[: len(rows[i])]


def streams_in_order(model: LoadedModel, rows: Sequence[Sequence[int]], layer: int) -> list[Float[Tensor, "_pos d_model"]]:
    """Return what `streams` yields, in the order in which the sequences were given."""
    by_row = dict(streams(model, rows, layer))
    return [by_row[i] for i in range(len(rows))]


def batches(model: LoadedModel, rows: Sequence[Sequence[int]]) -> Iterator[tuple[list[int], Int[Tensor, "batch pos"]]]:
    """Yield token sequences in batches of similar lengths, padded on the right: the numbers of the sequences, and their token ids.

    Raises:
        ConfigError: a sequence has no token, or is longer than the context window.
    """
    for row in rows:
        check_length(model, len(row))
    most_tokens = BATCH_TOKENS if model.rope_switch is None else 0  # longrope chooses frequencies by the length of a whole batch
    for numbers in batches_by_length([len(row) for row in rows], most_tokens):
        yield numbers, right_padded([rows[i] for i in numbers])


class SharedBatch(NamedTuple):
    """Token sequences as one batch without the tokens that all of them begin with, which were computed once."""

    ids: Int[Tensor, "batch pos"]
    before: DynamicCache | None
    """Keys and values of the tokens that all rows begin with; None where they share too few."""
    last: Int[Tensor, " batch"]
    """Position in `ids` of each row's last token."""


def shared_batch(model: LoadedModel, rows: Sequence[Sequence[int]], layer: int) -> SharedBatch:
    """Return token sequences as a batch for blocks 0 to `layer`, for `block_output` or `network_inputs`."""
    shared = common_beginning(rows)
    start = len(shared) if len(shared) >= _FEWEST_SHARED and len(rows) > 1 else 0
    before = shared_prefix(model, shared, layer, len(rows)) if start else None
    return SharedBatch(right_padded([row[start:] for row in rows]), before, torch.tensor([len(row) - start - 1 for row in rows]))


@exclusive
def shared_prefix(model: LoadedModel, ids: Sequence[int], layer: int, rows: int) -> DynamicCache:
    """Run the tokens that `rows` sequences begin with once through blocks 0 to `layer`, and return their keys and values for all rows."""
    cache = DynamicCache(config=model.text_config)
    block_output(model, torch.tensor([list(ids)]), layer, cache)
    for_rows(cache, rows)
    return cache


@exclusive
def capture(
    model: LoadedModel, transcript: Transcript, tokens: Sequence[TokenRef], layer: int, through: Sequence[TokenRef] = ()
) -> Float[Tensor, "k d_model"]:
    """Return the residual stream after block `layer` at the given tokens of a transcript, in their order (float32, on the CPU).

    Args:
        model: the model.
        transcript: the transcript.
        tokens: the tokens to read.
        layer: the layer K.
        through: further tokens that a sequence runs through where it is run at all. The length of a sequence changes the last bits of
            its vectors, so reads that run through the same tokens give the same bits, whatever they read.

    Raises:
        ConfigError: the model has no such block, or a pass is longer than the context window.
    """
    if not tokens:
        return torch.empty(0, model.d_model)
    chosen = set(tokens)
    vectors: dict[TokenRef, Tensor] = {}
    for ids, within in readings(model, transcript, [*tokens, *(token for token in through if token not in chosen)]):
        if wanted := [token for token in within if token in chosen]:
            stream = residual_stream(model, ids, layer).cpu()
            vectors.update({token: stream[token.position] for token in wanted})
    return torch.stack([vectors[token] for token in tokens])


def readings(model: LoadedModel, transcript: Transcript, tokens: Sequence[TokenRef]) -> Iterator[tuple[list[int], list[TokenRef]]]:
    """Yield the token sequences to run for the given tokens of a transcript, each with those of the tokens that are read from it.

    A sequence ends at the last token that is read from it, because later tokens cannot influence it. Where a model's rotary frequencies
    change at some length (longrope), tokens before and after that length are read from separate sequences.
    """
    for index, forward_pass in enumerate(transcript.passes):
        wanted = [token for token in tokens if token.pass_index == index]
        switch = model.rope_switch or model.max_positions
        for group in ([t for t in wanted if t.position < switch], [t for t in wanted if t.position >= switch]):
            if group:
                yield list(forward_pass.ids[: max(token.position for token in group) + 1]), group
