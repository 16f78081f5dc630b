"""Vectors and next-token distributions of passages: one forward pass per batch, read at seeded positions.

In: `Passage`s. Out: for each, a `Reading` with raw vectors `[k, d_model]` (the output of decoder block K, 0-based) and the likeliest next
tokens, from which `example_at` makes training examples.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from nla.kernels.padding import batches_by_length, right_padded
from nla.models.loaded import LoadedModel, exclusive
from nla.support.seeds import seeded_generator
from nla.training.data.config import DataConfig
from nla.training.data.documents import Passage
from nla.training.data.features import Rarity, TokenContext, explain
from nla.training.data.shards import Example

_FOLLOWING = 4
"""Likeliest next tokens that are kept per position."""


@dataclass(frozen=True)
class Reading:
    """What the forward pass gave for one passage: vectors and the likeliest next tokens at its chosen positions."""

    passage: Passage
    positions: list[int]
    vectors: Float[Tensor, "k d_model"]
    following: list[list[tuple[int, float]]]
    """Per position, ids and probabilities of the likeliest next tokens."""


def read_passages(model: LoadedModel, layer: int, every: Sequence[Passage], config: DataConfig) -> Iterator[Reading]:
    """Run passages in batches of similar lengths and read each at seeded positions, which depend on its document alone.

    Args:
        model: the model to read.
        layer: block (0-based) whose output is read.
        every: passages that have positions to read.
        config: positions per passage, tokens per batch, seed.
    """
    for batch in batches_by_length([len(passage.ids) for passage in every], config.batch_tokens):
        yield from _read_batch(model, layer, [every[row] for row in batch], config)


def _read_batch(model: LoadedModel, layer: int, batch: list[Passage], config: DataConfig) -> Iterator[Reading]:
    chosen = [_positions(passage, config) for passage in batch]
    ids = right_padded([passage.ids[: positions[-1] + 1] for passage, positions in zip(batch, chosen, strict=True)])
    where = torch.tensor([(row, position) for row, positions in enumerate(chosen) for position in positions])
    vectors, logits = stream_and_logits(model, ids, layer, where)
    top = logits.softmax(dim=-1).topk(_FOLLOWING)
    start = 0
    for passage, positions in zip(batch, chosen, strict=True):
        part = slice(start, start + len(positions))
        pairs = [
            list(zip(tokens, shares, strict=True))
            for tokens, shares in zip(top.indices[part].tolist(), top.values[part].tolist(), strict=True)
        ]
        yield Reading(passage, positions, vectors[part], pairs)
        start = part.stop


def _positions(passage: Passage, config: DataConfig) -> list[int]:
    """Return seeded positions, one from each of as many equal stretches, so that they are spread over the passage."""
    n = min(config.positions_per_passage, len(passage.positions))
    draws = seeded_generator("positions", config.seed, passage.doc_id, passage.window)
    return [int(draws.choice(stretch)) for stretch in np.array_split(np.asarray(passage.positions), n)]


@exclusive
@torch.no_grad()
def stream_and_logits(
    model: LoadedModel, ids: Int[Tensor, "batch pos"], layer: int, where: Int[Tensor, "n 2"]
) -> tuple[Float[Tensor, "n d_model"], Float[Tensor, "n vocab"]]:
    """Return the residual stream after block `layer` and the next-token logits at the (row, position) pairs `where` (float32, CPU)."""
    kept: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: object, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
            kept[name] = (output[0] if isinstance(output, tuple) else output)[where[:, 0], where[:, 1]]

        return hook

    handles = [model.blocks[layer].register_forward_hook(keep("stream")), model.final_norm.register_forward_hook(keep("normed"))]
    try:
        model.network(input_ids=ids.to(model.device), use_cache=False, logits_to_keep=1)
    finally:
        for handle in handles:
            handle.remove()
    logits: Tensor = model.unembedding(kept["normed"])
    return kept["stream"].float().cpu(), logits.float().cpu()


def example_at(model: LoadedModel, layer: int, reading: Reading, k: int, rarity: Rarity) -> Example:
    """Return the k-th position of a reading as an example, with the text up to it and the explanation of the `features` teacher."""
    position = reading.positions[k]
    passage, tokenizer = reading.passage, model.tokenizer
    ids = passage.ids[: position + 1]
    context = TokenContext(ids, passage.situation, reading.following[k], passage.asked, passage.reply_from)
    return Example(
        activation_vector=reading.vectors[k].numpy(),
        n_raw_tokens=position + 1,
        activation_layer=layer,
        doc_id=passage.doc_id,
        detokenized_text_truncated=str(tokenizer.decode(ids)),
        api_explanation=explain(context, tokenizer, rarity),
        situation=passage.situation,
        token_id=ids[-1],
    )
