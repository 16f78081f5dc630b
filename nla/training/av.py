"""Warm start of the AV: supervised training on a teacher's explanations, given the vector alone.

The prompt before the marker is the same for every example, so it runs as one row whose keys and values all examples share, with
its gradient summed over them. Loss: mean cross-entropy in nats a token of the reply.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import DynamicCache

from nla.kernels.kv_cache import cache_argument
from nla.kernels.padding import FEW_SHAPES, alike_halves, right_padded
from nla.models.adapters import adapter_parameters
from nla.models.chat_template import encode_content
from nla.models.loaded import LoadedModel
from nla.pair.contract import Sidecar, av_prompt_ids, scaled
from nla.training.loop import Group
from nla.training.loss import linear_cross_entropy
from nla.verbalizers.av import CLOSE, OPEN


def reply_ids(model: LoadedModel, explanation: str) -> list[int]:
    """Token ids of the AV's whole reply for an explanation, its tags and the end-of-turn token included."""
    assert isinstance(model.tokenizer.eos_token_id, int)
    return [*encode_content(model.tokenizer, f"{OPEN}{explanation}{CLOSE}"), model.tokenizer.eos_token_id]


class TokenLosses:
    """-log p of every reply token under an AV with gradients, for replies to vectors; p is the softmax of logits / `temperature`."""

    def __init__(self, av: LoadedModel, sidecar: Sidecar, temperature: float = 1.0) -> None:
        prompt = av_prompt_ids(av.tokenizer, sidecar)
        assert sidecar.marker is not None
        [at] = sidecar.marker.positions(prompt)
        self.av, self.scale, self.temperature = av, sidecar.injection_scale, temperature
        self.prefix, self.tail = prompt[:at], prompt[at:]

    def __call__(self, vectors: Float[Tensor, "n d_model"], replies: Sequence[Sequence[int]]) -> tuple[Float[Tensor, " tokens"], list[int]]:
        """Losses of all reply tokens, row after row, and how many belong to each row."""
        device, n_tail = self.av.device, len(self.tail)
        rows = [[*self.tail, *reply[:-1]] for reply in replies]  # the last token predicts nothing
        ids = right_padded(rows, FEW_SHAPES)
        wanted = torch.zeros_like(ids, dtype=torch.bool)
        for i, row in enumerate(rows):
            wanted[i, n_tail - 1 : len(row)] = True
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.av.precision.dtype == torch.bfloat16):
            hidden = self._hidden(ids.to(device), vectors.to(device))[wanted.to(device)]
            targets = torch.tensor([token for reply in replies for token in reply], device=device)
            losses = linear_cross_entropy(hidden / self.temperature, self._unembedding(), targets)
        return losses, [len(reply) for reply in replies]

    def _hidden(self, ids: Tensor, vectors: Tensor) -> Float[Tensor, "n pos d_model"]:
        decoder = self.av.network.get_decoder()
        device, n_prefix = ids.device, len(self.prefix)
        cache = DynamicCache(config=self.av.text_config)
        decoder(input_ids=torch.tensor([self.prefix], device=device), use_cache=True, **cache_argument(decoder, cache))
        for layer in cache.layers:
            layer.keys = layer.keys.expand(len(ids), -1, -1, -1)  # type: ignore[union-attr]
            layer.values = layer.values.expand(len(ids), -1, -1, -1)  # type: ignore[union-attr]
        embeds = self.av.embedding(ids)
        embeds = torch.cat([scaled(vectors, self.scale).to(embeds)[:, None], embeds[:, 1:]], dim=1)
        positions = torch.arange(n_prefix, n_prefix + ids.shape[1], device=device)[None]
        out = decoder(inputs_embeds=embeds, position_ids=positions, use_cache=True, **cache_argument(decoder, cache))
        hidden: Tensor = out.last_hidden_state
        return hidden

    def _unembedding(self) -> Tensor:
        weight = self.av.unembedding.weight
        assert isinstance(weight, Tensor)
        return weight


@dataclass
class AVStage:
    """The AV's warm start. `heldout_*` are for `evaluate`: vectors of documents that are not trained on."""

    av: LoadedModel
    sidecar: Sidecar
    vectors: Float[Tensor, "n d_model"]
    explanations: Sequence[str]
    heldout_vectors: Float[Tensor, "m d_model"]
    heldout_explanations: Sequence[str]
    name: str = "AV"

    def __post_init__(self) -> None:
        self._losses = TokenLosses(self.av, self.sidecar)

    @property
    def n_examples(self) -> int:
        """Number of training vectors."""
        return len(self.explanations)

    def groups(self) -> list[Group]:
        """The adapter."""
        return [Group(adapter_parameters(self.av))]

    def loss(self, rows: list[int], step: int) -> tuple[Tensor, dict[str, float]]:
        """Mean loss of some training examples."""
        replies = {i: reply_ids(self.av, self.explanations[i]) for i in rows}
        halves = alike_halves(rows, lambda i: len(replies[i]))
        losses = [self._losses(self.vectors[half], [replies[i] for i in half])[0] for half in halves]
        return torch.cat(losses).mean(), {"tokens": float(sum(map(len, replies.values())))}

    def evaluate(self) -> dict[str, float]:
        """Nats a token with the right vector and with another one's: the gap is what the AV reads from the vector."""
        right, shuffled = (self._heldout_nats(shift) for shift in (0, 1))
        return {"nats": right, "nats_shuffled": shuffled, "gap": shuffled - right}

    def _heldout_nats(self, shift: int, batch: int = 64) -> float:
        total, count = 0.0, 0
        vectors = self.heldout_vectors.roll(shift * 7, dims=0)
        with torch.no_grad():
            for start in range(0, len(vectors), batch):
                replies = [reply_ids(self.av, text) for text in self.heldout_explanations[start : start + batch]]
                losses, _ = self._losses(vectors[start : start + batch], replies)
                total, count = total + float(losses.sum()), count + len(losses)
        return total / count
