"""Reinforcement learning of a pair: GRPO for the AV, with the AR's reconstruction error as reward, and the AR trained alongside.

Each step: draw a group of explanations for each of a few vectors; the reward is -mse_nrm of the AR's reconstruction (or -log mse),
less a penalty for length, and -2 for a failed explanation; advantages are normalised within a group; one on-policy gradient step
for the AV, with a KL penalty towards the warm-started AV, and one for the AR on the same explanations. The warm-start adapter is
continued, never replaced. After the public reference (kitft/natural_language_autoencoders); the length hinge and -log mse are ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nla.kernels.padding import alike_halves
from nla.models.adapters import adapter_parameters
from nla.models.loaded import LoadedModel
from nla.pair.contract import Sidecar
from nla.pair.metrics import mse_nrm, reconstruction
from nla.training.ar import Reconstruct, mse_nrm_loss
from nla.training.av import TokenLosses
from nla.training.config import RLConfig
from nla.training.loop import Group
from nla.verbalizers.av import ActivationVerbalizer
from nla.verbalizers.base import Explanation


@dataclass(frozen=True)
class Rollout:
    """One sampled explanation of a vector."""

    vector: int
    """Row of the step's vectors it belongs to."""
    ids: tuple[int, ...]
    explanation: Explanation


def advantages(rewards: Float[Tensor, "vectors group"]) -> Float[Tensor, "vectors group"]:
    """Rewards less their group's mean, over their group's standard deviation; zero where a group is all alike."""
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    return centred / (rewards.std(dim=1, unbiased=False, keepdim=True) + 1e-4)


def telling(advantage: Float[Tensor, "vectors group"], n: int) -> list[int]:
    """Places, in the flattened groups, of the n rollouts of each group with the greatest advantages either way.

    Those near their group's mean hardly move the AV, but cost as much as the others.
    """
    best = advantage.abs().topk(n, dim=1).indices
    starts = torch.arange(len(advantage))[:, None] * advantage.shape[1]
    places: list[int] = (best + starts).flatten().tolist()
    return places


def rewards_of(errors: Float[Tensor, " n"], rollouts: Sequence[Rollout], config: RLConfig) -> Float[Tensor, " n"]:
    """Reward of each rollout from its reconstruction error mse_nrm (ignored for failed ones)."""
    quality = -errors if config.reward == "-mse" else -errors.clamp_min(1e-3).log()
    lengths = torch.tensor([len(rollout.ids) for rollout in rollouts], dtype=quality.dtype)
    reward = quality - config.length_penalty * (lengths - config.length_from).clamp_min(0)
    failed = torch.tensor([bool(rollout.explanation.failure) for rollout in rollouts])
    return torch.where(failed, torch.full_like(reward, config.failure_reward), reward)


def policy_loss(
    nats: Float[Tensor, " tokens"],
    reference_nats: Float[Tensor, " tokens"],
    lengths: Sequence[int],
    advantage: Float[Tensor, " n"],
    kl: float,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """(loss, mean KL in nats a token) of one on-policy step.

    Each token's log-probability counts with its rollout's advantage; the KL to the reference is the non-negative estimator
    exp(r) - r - 1 with r = log p_ref - log p. All tokens of the step weigh the same, so long rollouts are not favoured.

    Args:
        nats: -log p of every token under the AV, with gradient.
        reference_nats: the same under the warm-started AV.
        lengths: tokens of each rollout, in order.
        advantage: one a rollout.
        kl: weight of the penalty.
    """
    weight = advantage.to(nats).repeat_interleave(torch.tensor(list(lengths), device=nats.device))
    ratio = nats - reference_nats  # log p_ref - log p
    penalty = (ratio.clamp(max=10).exp() - ratio - 1).mean()
    return (weight * nats).mean() + kl * penalty, penalty.detach()


@dataclass
class RLStage:
    """Joint training of AV and AR on rollouts. `batch` of the train config counts vectors; each gets `group` rollouts."""

    av: LoadedModel
    reference: LoadedModel
    """The warm-started AV, frozen."""
    actor: LoadedModel
    """A copy of the AV in the base model's dtype that draws the rollouts; it follows the AV."""
    av_sidecar: Sidecar
    ar: LoadedModel
    head: nn.Parameter
    ar_sidecar: Sidecar
    vectors: Float[Tensor, "n d_model"]
    heldout_vectors: Float[Tensor, "m d_model"]
    config: RLConfig
    temperature: float
    """Of the held-out samples: the one the pair is shipped with."""
    name: str = "RL"

    def __post_init__(self) -> None:
        self._nats = TokenLosses(self.av, self.av_sidecar, self.config.temperature)
        self._reference_nats = TokenLosses(self.reference, self.av_sidecar, self.config.temperature)
        self._reconstruct = Reconstruct(self.ar, self.head, self.ar_sidecar)

    @property
    def n_examples(self) -> int:
        """Number of training vectors."""
        return len(self.vectors)

    def groups(self) -> list[Group]:
        """The AV's adapter; the AR's with its head."""
        return [Group(adapter_parameters(self.av)), Group([*adapter_parameters(self.ar), self.head], self.config.ar_lr_share)]

    def loss(self, rows: list[int], step: int) -> tuple[Tensor, dict[str, float]]:
        """Policy and reconstruction loss of one step's rollouts, and what they were like."""
        vectors = self.vectors[rows]
        rollouts = self._rollouts(vectors, step)
        owners = [rollout.vector for rollout in rollouts]
        predicted = self._reconstruct([rollout.explanation.text or "-" for rollout in rollouts])
        errors = mse_nrm(vectors[owners], predicted.detach().cpu()).float()
        rewards = rewards_of(errors, rollouts, self.config)
        advantage = advantages(rewards.view(len(rows), self.config.group)).flatten()
        policy, kl = self._policy(vectors[owners], rollouts, advantage)
        good = torch.tensor([not rollout.explanation.failure for rollout in rollouts])
        ar_loss = mse_nrm_loss(predicted, vectors[owners].to(predicted))[good].mean() if bool(good.any()) else predicted.sum() * 0
        figures = {
            "reward": float(rewards.mean()),
            "kl": float(kl),
            "failed": float((~good).float().mean()),
            "length": sum(len(rollout.ids) for rollout in rollouts) / len(rollouts),
            "distinct": len({rollout.explanation.text for rollout in rollouts}) / len(rollouts),
        }
        if bool(good.any()):
            figures["mse_nrm"] = float(errors[good].mean())
        return policy + ar_loss, figures

    def _policy(self, vectors: Tensor, rollouts: Sequence[Rollout], advantage: Tensor) -> tuple[Tensor, Tensor]:
        """Policy loss and KL of the rollouts that count: of each group those with the greatest advantages either way."""
        by_group = advantage.view(-1, self.config.group)
        chosen = telling(by_group, self.config.learn_from or self.config.group)
        nats, reference, lengths, order = [], [], [], []
        for part in alike_halves(chosen, lambda i: len(rollouts[i].ids)):
            order += part
            replies = [list(rollouts[i].ids) for i in part]
            with torch.no_grad():
                reference.append(self._reference_nats(vectors[part], replies)[0])
            own, counts = self._nats(vectors[part], replies)
            nats.append(own)
            lengths += counts
        return policy_loss(torch.cat(nats), torch.cat(reference), lengths, advantage[order], self.config.kl)

    def _rollouts(self, vectors: Float[Tensor, "n d_model"], step: int) -> list[Rollout]:
        verbalizer = self._verbalizer(self.config.temperature)
        group = self.config.group
        owners = [row for row in range(len(vectors)) for _ in range(group)]
        keys = [("rollout", self.config.train.seed, step, i) for i in range(len(owners))]
        drawn = verbalizer.complete(vectors[owners], keys)
        return [Rollout(owner, tuple(done.ids), verbalizer.explanation(done)) for owner, done in zip(owners, drawn, strict=True)]

    def _verbalizer(self, temperature: float) -> ActivationVerbalizer:
        with torch.no_grad():
            for mine, its in zip(adapter_parameters(self.actor), adapter_parameters(self.av), strict=True):
                mine.copy_(its)
        return ActivationVerbalizer(self.actor, self.av_sidecar, temperature, self.config.max_tokens)

    def evaluate(self) -> dict[str, float]:
        """Round trip of held-out vectors at the shipped temperature."""
        verbalizer = self._verbalizer(self.temperature)
        drawn = verbalizer.verbalize(self.heldout_vectors, [("heldout", i) for i in range(len(self.heldout_vectors))])
        kept = [i for i, one in enumerate(drawn) if not one.failure]
        figures = {"failed": 1 - len(kept) / len(drawn)}
        if len(kept) < 2:
            return figures
        texts = [drawn[i].text for i in kept]
        with torch.no_grad():
            predicted = torch.cat([self._reconstruct(texts[i : i + 64]).cpu() for i in range(0, len(texts), 64)])
        words = [word for text in texts for word in text.split()]
        return figures | {
            "fve": reconstruction(self.heldout_vectors[kept], predicted).fve_nrm,
            "distinct": len(set(texts)) / len(texts),
            "distinct_words": len(set(words)) / max(len(words), 1),
        }
