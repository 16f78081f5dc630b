"""The first stage, `nla train av`: the AV's warm start, supervised training on a teacher's explanations.

In: raw vectors `[n, d_model]` and one explanation per vector. Out: an adapter with which the base model writes the explanation when it
is given only the vector, in place of the marker's embedding. Loss: mean cross-entropy in nats per token of the reply. This is the
paper's supervised step; we train an adapter instead of the whole model, and continue an earlier AV where there is one.

The prompt before the marker is the same for every example, so it runs as one row whose keys and values all examples share, with its
gradient summed over them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nla.activations.continuation import hidden_after
from nla.kernels.padding import FEW_SHAPES, alike_parts, right_padded
from nla.models.adapters import adapter_parameters
from nla.models.chat_template import encode_content
from nla.models.loaded import LoadedModel
from nla.pair.contract import Sidecar, av_prompt_ids, require_replacing, scaled
from nla.training.loop import Group
from nla.training.loss import PART, linear_cross_entropy, summed
from nla.verbalizers.av import CLOSE, OPEN


def reply_ids(model: LoadedModel, explanation: str) -> list[int]:
    """Return the token ids of the AV's whole reply for an explanation, including its tags and the end-of-turn token."""
    assert isinstance(model.tokenizer.eos_token_id, int)
    return [*encode_content(model.tokenizer, f"{OPEN}{explanation}{CLOSE}"), model.tokenizer.eos_token_id]


class TokenLosses:
    """-log p of every token of the AV's replies to vectors, with gradient; p is the softmax of logits / `temperature`.

    Args:
        av: the AV, with a trainable adapter where a gradient is wanted.
        sidecar: its contract.
        temperature: of the distribution that the replies were or will be sampled from.

    Raises:
        ContractError: the AV's vectors do not replace an embedding.
    """

    def __init__(self, av: LoadedModel, sidecar: Sidecar, temperature: float = 1.0) -> None:
        require_replacing(sidecar, "training")
        prompt = av_prompt_ids(av.tokenizer, sidecar)
        assert sidecar.marker is not None
        [at] = sidecar.marker.positions(prompt)
        self.av, self.scale, self.temperature = av, sidecar.injection_scale, temperature
        self.prefix, self.tail = prompt[:at], prompt[at:]

    def __call__(self, vectors: Float[Tensor, "n d_model"], replies: Sequence[Sequence[int]]) -> tuple[Float[Tensor, " tokens"], list[int]]:
        """Return the losses in nats of all reply tokens, row after row, and the number of tokens of each row."""
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
        """Return the final hidden states of `[marker, rest of the prompt, reply]`, after the prefix that all rows share."""
        embeds = self.av.embedding(ids)
        embeds = torch.cat([scaled(vectors, self.scale).to(embeds)[:, None], embeds[:, 1:]], dim=1)
        return hidden_after(self.av, self.prefix, embeds)

    def _unembedding(self) -> Tensor:
        weight = self.av.unembedding.weight
        assert isinstance(weight, Tensor)
        return weight


def taught_loss(
    losses: TokenLosses, vectors: Float[Tensor, "n d_model"], explanations: Sequence[str], rows: list[int], part: int
) -> tuple[Tensor, int]:
    """Return the mean cross-entropy (nats per token) of explanations, with its gradient, and the number of their tokens.

    Args:
        losses: of the AV that is taught.
        vectors: raw vectors.
        explanations: one per vector.
        rows: which of them are taught.
        part: rows that are differentiated at a time.
    """
    replies = {i: reply_ids(losses.av, explanations[i]) for i in rows}
    n_tokens = sum(map(len, replies.values()))
    parts = alike_parts(rows, lambda i: len(replies[i]), part)
    sums = (losses(vectors[rows_of_part], [replies[i] for i in rows_of_part])[0].sum() / n_tokens for rows_of_part in parts)
    return summed(sums, adapter_parameters(losses.av)), n_tokens


@dataclass
class AVStage:
    """The AV's warm start.

    Args:
        av: the base model with an adapter.
        sidecar: the AV's contract.
        vectors: raw vectors to train on.
        explanations: one per vector.
        heldout_vectors: raw vectors of held-out documents, for `evaluate`.
        heldout_explanations: one per held-out vector.
    """

    av: LoadedModel
    sidecar: Sidecar
    vectors: Float[Tensor, "n d_model"]
    explanations: Sequence[str]
    heldout_vectors: Float[Tensor, "m d_model"]
    heldout_explanations: Sequence[str]
    name: str = "AV"
    part: int = PART

    def __post_init__(self) -> None:
        self._losses = TokenLosses(self.av, self.sidecar)
        self._n_tokens = 0

    @property
    def n_examples(self) -> int:
        """Number of training vectors."""
        return len(self.explanations)

    def groups(self) -> list[Group]:
        """Return the adapter's parameters."""
        return [Group(adapter_parameters(self.av))]

    def loss(self, rows: list[int], step: int) -> tuple[Tensor, dict[str, float]]:
        """Return the mean loss of the training examples `rows`, and their number of reply tokens."""
        loss, self._n_tokens = taught_loss(self._losses, self.vectors, self.explanations, rows, self.part)
        return loss, {"tokens": float(self._n_tokens)}

    def counts(self) -> list[float]:
        """Return the number of reply tokens that the latest loss is a mean over."""
        return [float(self._n_tokens)]

    def evaluate(self) -> dict[str, float]:
        """Return nats per token given the right vector and given another one; the gap is what the AV reads from the vector."""
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
