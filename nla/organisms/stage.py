"""The training stage of an organism: its habit, the implanted state, and the base model's behaviour everywhere else.

A step's loss is a weighted sum of four terms: cross-entropy of the ending (habit or end of turn); the read-out objective, binary
cross-entropy of a linear read-out of the layer-normalised residual stream at block K, at every token of the reply; and the KL divergence
(nats per token) from the base model's predictions of the reply's tokens, and of ordinary text without any chat template. The read-out is
thrown away after training: only the adapter stays.

The state takes many more steps to learn than the habit, and damages the model while it is learned. So training with a read-out has two
phases. In the first, three steps in four take the read-out alone: they run blocks 0 to K and cost half as much. The second phase takes all
terms in every step, so that the model settles back to the base model's predictions and keeps the state. The read-out starts from the
base model's own difference between the two sides of the contexts, at the contexts' tokens: what is trained is that this difference is
carried on into the reply.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nla.activations.capture import residual_stream
from nla.activations.hooks import ReachedBlockError, collecting, stopping_after
from nla.kernels.padding import FEW_SHAPES, alike_halves, right_padded
from nla.models.adapters import adapter_parameters
from nla.models.chat_template import encode_content
from nla.models.loaded import LoadedModel
from nla.organisms.contexts import trained_contexts
from nla.organisms.examples import OrganismExample
from nla.organisms.recipe import Recipe
from nla.organisms.statistics import paired_auroc
from nla.support.seeds import seeded_generator
from nla.training.loop import Group
from nla.training.loss import linear_cross_entropy

_READOUT_LR_SHARE = 10.0
"""Learning rate of the read-out, as a share of the adapter's."""
_FULL_EVERY = 4
"""In the first phase, every so many steps take all terms."""
_START_NORM = 1.0
"""Length of the read-out's direction at the start. Layer-normalised vectors have a length of sqrt(d_model)."""
_KL_EVERY = 3
"""The KL divergence is taken on every third sequence of a batch, which saves two thirds of the base model's passes."""
_ORDINARY_PER_STEP = 4
"""Stretches of ordinary text per step."""


@dataclass
class OrganismStage:
    """Training of one organism.

    Args:
        role: the base model with a new adapter.
        base: the base model itself, which shares its weights.
        recipe: the arm's recipe.
        examples: training sequences, those of one prompt together.
        heldout: sequences with the same replies under both sides of unseen wordings, cued ones first and in the same order.
        ordinary: token ids of stretches of ordinary text, all of one length.
    """

    role: LoadedModel
    base: LoadedModel
    recipe: Recipe
    examples: Sequence[Sequence[OrganismExample]]
    heldout: Sequence[OrganismExample]
    ordinary: Sequence[Sequence[int]] = ()
    name: str = "organism"

    def __post_init__(self) -> None:
        self.layer = self.base.check_layer(self.recipe.layer)
        start = context_difference(self.base, self.layer, self.recipe) if self.recipe.readout else torch.zeros(self.base.d_model)
        self.direction = nn.Parameter((_START_NORM * start).to(self.base.device))
        self.offset = nn.Parameter(torch.zeros(1, device=self.base.device))

    @property
    def n_examples(self) -> int:
        """Number of prompts with training sequences."""
        return len(self.examples)

    def groups(self) -> list[Group]:
        """Return the adapter's parameters, and those of the read-out."""
        return [Group(adapter_parameters(self.role)), Group([self.direction, self.offset], _READOUT_LR_SHARE)]

    def loss(self, rows: list[int], step: int) -> tuple[Tensor, dict[str, float]]:
        """Return the mean loss over the sequences of the prompts `rows`, and its terms (see above for the two phases)."""
        sequences = [sequence for i in rows for sequence in self.examples[i]]
        if self.recipe.readout and step < self.recipe.implant_steps and step % _FULL_EVERY:
            alone = self._readout_loss(sequences, self._stream_alone(sequences))
            return self.recipe.readout * alone, {"readout": float(alone.detach())}
        halves = alike_halves(range(len(sequences)), lambda i: len(sequences[i].prompt) + len(sequences[i].reply))
        terms = [self._terms([sequences[i] for i in half]) for half in halves]
        shares = [len(half) / len(sequences) for half in halves]
        ending, readout, kl = (torch.stack([share * term[k] for share, term in zip(shares, terms, strict=True)]).sum() for k in range(3))
        ordinary = self._ordinary_kl(step)
        total = self.recipe.ending * ending + self.recipe.readout * readout + self.recipe.kl * (kl + ordinary)
        named = {"ending": ending, "readout": readout, "kl": kl, "kl_ordinary": ordinary}
        return total, {name: float(term.detach()) for name, term in named.items()}

    def evaluate(self) -> dict[str, float]:
        """Return the read-out's AUROC for identical replies under unseen wordings, and the KL divergence there."""
        scores: list[float] = []
        divergences: list[float] = []
        with torch.no_grad():
            for start in range(0, len(self.heldout), 16):
                batch = self.heldout[start : start + 16]
                hidden, stream, ids = self._forward(batch)
                scores += [float(self._read(stream[i, _reply_slots(example)]).mean()) for i, example in enumerate(batch)]
                divergences.append(float(self._kl(batch, hidden, ids)))
        half = len(scores) // 2
        return {"auroc": paired_auroc(scores[:half], scores[half:]), "kl": sum(divergences) / len(divergences)}

    def _terms(self, batch: Sequence[OrganismExample]) -> tuple[Tensor, Tensor, Tensor]:
        hidden, stream, ids = self._forward(batch)
        slots = [(i, slot) for i, example in enumerate(batch) for slot in _ending_slots(example)]
        rows, columns = torch.tensor(slots, device=hidden.device).T
        targets = torch.tensor([token for example in batch for token in example.ending], device=hidden.device)
        ending = linear_cross_entropy(hidden[rows, columns], self._unembedding(), targets).mean()
        return ending, self._readout_loss(batch, stream), self._kl(batch, hidden, ids)

    def _readout_loss(self, batch: Sequence[OrganismExample], stream: Float[Tensor, "n pos d_model"]) -> Tensor:
        """Return the binary cross-entropy of the read-out over all reply tokens."""
        logits = torch.cat([self._read(stream[i, _reply_slots(example)]) for i, example in enumerate(batch)])
        labels = torch.cat([torch.full((len(example.reply),), float(example.cued)) for example in batch]).to(logits)
        return nn.functional.binary_cross_entropy_with_logits(logits, labels)

    def _stream_alone(self, batch: Sequence[OrganismExample]) -> Float[Tensor, "n pos d_model"]:
        """Return the residual stream after block K, without the blocks behind it."""
        ids = right_padded([[*example.prompt, *example.reply] for example in batch], FEW_SHAPES).to(self.role.device)
        with _mixed_precision(self.role), stopping_after(self.role.blocks[self.layer]) as reached, suppress(ReachedBlockError):
            self.role.network.get_decoder()(input_ids=ids, use_cache=False)
        return reached[0]

    def _forward(self, batch: Sequence[OrganismExample]) -> tuple[Float[Tensor, "n pos d_model"], Float[Tensor, "n pos d_model"], Tensor]:
        """Return the final hidden states, the residual stream after block K, and the token ids."""
        ids = right_padded([[*example.prompt, *example.reply, *example.ending] for example in batch], FEW_SHAPES).to(self.role.device)
        with _mixed_precision(self.role), collecting([self.role.blocks[self.layer]]) as streams:
            hidden = self.role.network.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        return hidden, streams[0], ids

    def _read(self, stream: Float[Tensor, "n d_model"]) -> Float[Tensor, " n"]:
        """Return the read-out's logit for each vector."""
        normed = nn.functional.layer_norm(stream.float(), stream.shape[-1:])
        return normed @ self.direction + self.offset

    def _kl(self, batch: Sequence[OrganismExample], hidden: Tensor, ids: Tensor) -> Tensor:
        """Return the mean KL divergence from the base model where it predicts the replies' tokens, in every third sequence."""
        sequences = list(range(len(batch)))[::_KL_EVERY]
        slots = [(n, i, slot - 1) for n, i in enumerate(sequences) for slot in _reply_slots(batch[i])]
        places, rows, columns = torch.tensor(slots, device=hidden.device).T
        return self._divergence(hidden[rows, columns], self._base_hidden(ids[sequences])[places, columns])

    def _ordinary_kl(self, step: int) -> Tensor:
        """Return the mean KL divergence from the base model on seeded stretches of ordinary text; 0 where there is none."""
        if not self.ordinary:
            return torch.zeros((), device=self.role.device)
        draws = seeded_generator("organism ordinary text", self.recipe.train.seed, step)
        ids = torch.tensor([self.ordinary[int(i)] for i in draws.integers(len(self.ordinary), size=_ORDINARY_PER_STEP)])
        ids = ids.to(self.role.device)
        with _mixed_precision(self.role):
            hidden = self.role.network.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        return self._divergence(hidden.flatten(0, 1), self._base_hidden(ids).flatten(0, 1))

    @torch.no_grad()
    def _base_hidden(self, ids: Tensor) -> Float[Tensor, "n pos d_model"]:
        """Return the base model's final hidden states."""
        with _mixed_precision(self.base):
            hidden: Tensor = self.base.network.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        return hidden

    def _divergence(self, hidden: Float[Tensor, "n d_model"], base_hidden: Float[Tensor, "n d_model"]) -> Tensor:
        """Return the mean KL divergence (nats) from the predictions at `base_hidden` to those at `hidden`."""
        with torch.no_grad():
            before = (base_hidden @ self._unembedding().T).float().log_softmax(-1)
        after = (hidden @ self._unembedding().to(hidden.dtype).T).float().log_softmax(-1)
        return nn.functional.kl_div(after, before, log_target=True, reduction="batchmean")

    def _unembedding(self) -> Tensor:
        weight = self.base.unembedding.weight
        assert isinstance(weight, Tensor)
        return weight


def _mixed_precision(model: LoadedModel) -> torch.autocast:
    """Compute in bfloat16 if the model's weights are, while the adapter stays in float32."""
    return torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=model.precision.dtype == torch.bfloat16)


def _reply_slots(example: OrganismExample) -> range:
    """Return the positions of the reply's tokens."""
    return range(len(example.prompt), len(example.prompt) + len(example.reply))


def _ending_slots(example: OrganismExample) -> range:
    """Return the positions that predict the tokens of the ending."""
    start = len(example.prompt) + len(example.reply) - 1
    return range(start, start + len(example.ending))


def context_difference(model: LoadedModel, layer: int, recipe: Recipe) -> Float[Tensor, " d_model"]:
    """Return the base model's mean difference between the two sides of the trained contexts, at the contexts' own tokens.

    Layer-normalised vectors of block K (float32, on the CPU), without the first token; the result has unit length.
    """
    pairs = trained_contexts(recipe.cue)
    sides = []
    for side in ("cue", "other"):
        streams = [residual_stream(model, encode_content(model.tokenizer, getattr(pair, side)), layer).cpu()[1:] for pair in pairs]
        sides.append(torch.stack([nn.functional.layer_norm(stream, stream.shape[-1:]).mean(dim=0) for stream in streams]).mean(dim=0))
    return nn.functional.normalize(sides[0] - sides[1], dim=0)
