"""The last stage, `nla train rl`: reinforcement learning (GRPO) of the AV, with the AR's reconstruction error as reward.

In: the warm-started AV and AR, and raw vectors `[n, d_model]`. Out: both adapters, trained further. Each step:

1. draw a group of explanations for each of a few vectors;
2. reward each with -mse_nrm of the AR's reconstruction (or -log mse), less a penalty for length, and -2 for a failed explanation;
3. normalise the rewards within each group to advantages;
4. take one on-policy gradient step for the AV, with a KL penalty towards the warm-started AV, and one for the AR on the same
   explanations.

The warm-started adapter is trained further, never replaced by a fresh one. This follows the paper's public reference
(kitft/natural_language_autoencoders); the penalty for length, -log mse, and learning only from the largest advantages are ours.
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
from nla.training.ar import TrainableReconstructor, mse_nrm_loss
from nla.training.av import TokenLosses
from nla.training.config import RLConfig
from nla.training.loop import Group
from nla.verbalizers.av import ActivationVerbalizer
from nla.verbalizers.base import Explanation


@dataclass(frozen=True)
class Rollout:
    """One sampled explanation of a vector."""

    vector: int
    """Which of the step's vectors it explains."""
    ids: tuple[int, ...]
    """Token ids of the whole reply."""
    explanation: Explanation


def advantages(rewards: Float[Tensor, "vectors group"]) -> Float[Tensor, "vectors group"]:
    """Return rewards minus their group's mean, divided by their group's standard deviation; zero where a group's rewards are equal."""
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    return centred / (rewards.std(dim=1, unbiased=False, keepdim=True) + 1e-4)


def largest_advantages(advantage: Float[Tensor, "vectors group"], n: int) -> list[int]:
    """Return the indices, in the flattened groups, of the n rollouts of each group with the largest absolute advantages.

    Rollouts near their group's mean hardly change the AV, but cost as much as the others.
    """
    best = advantage.abs().topk(n, dim=1).indices
    starts = torch.arange(len(advantage))[:, None] * advantage.shape[1]
    indices: list[int] = (best + starts).flatten().tolist()
    return indices


def rewards_of(errors: Float[Tensor, " n"], rollouts: Sequence[Rollout], config: RLConfig) -> Float[Tensor, " n"]:
    """Return the reward of each rollout.

    Args:
        errors: mse_nrm of each rollout's reconstruction; ignored for failed rollouts.
        rollouts: in the same order.
        config: kind of reward, penalty for length, reward of a failure.
    """
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
    """Return the loss and the mean KL divergence (nats per token) of one on-policy step.

    Each token's log-probability is weighted by its rollout's advantage. The KL divergence from the reference is estimated by
    exp(r) - r - 1, which is never negative, with r = log p_ref - log p. All tokens of the step weigh the same.

    Args:
        nats: -log p of every token under the AV, with gradient.
        reference_nats: the same under the warm-started AV.
        lengths: number of tokens of each rollout, in order.
        advantage: one per rollout.
        kl: weight of the penalty.
    """
    weight = advantage.to(nats).repeat_interleave(torch.tensor(list(lengths), device=nats.device))
    ratio = nats - reference_nats  # log p_ref - log p
    penalty = (ratio.clamp(max=10).exp() - ratio - 1).mean()
    return (weight * nats).mean() + kl * penalty, penalty.detach()


@dataclass
class RLStage:
    """Joint training of AV and AR on rollouts. `batch` of the train config counts vectors; each gets `group` rollouts.

    Args:
        av: the AV, with a trainable adapter.
        reference: the warm-started AV, frozen.
        actor: a copy of the AV in the base model's dtype, which draws the rollouts; the AV's adapter is copied into it before each draw.
        av_sidecar: the AV's contract.
        ar: blocks 0 to K with the AR's trainable adapter.
        head: `[d_model, d_model]`, float32.
        ar_sidecar: the AR's contract.
        vectors: raw vectors to train on.
        heldout_vectors: raw vectors of held-out documents.
        config: settings of the reinforcement learning.
        temperature: of the held-out samples, which is the finished pair's.
    """

    av: LoadedModel
    reference: LoadedModel
    actor: LoadedModel
    av_sidecar: Sidecar
    ar: LoadedModel
    head: nn.Parameter
    ar_sidecar: Sidecar
    vectors: Float[Tensor, "n d_model"]
    heldout_vectors: Float[Tensor, "m d_model"]
    config: RLConfig
    temperature: float
    name: str = "RL"

    def __post_init__(self) -> None:
        self._nats = TokenLosses(self.av, self.av_sidecar, self.config.temperature)
        self._reference_nats = TokenLosses(self.reference, self.av_sidecar, self.config.temperature)
        self._reconstruct = TrainableReconstructor(self.ar, self.head, self.ar_sidecar)

    @property
    def n_examples(self) -> int:
        """Number of training vectors."""
        return len(self.vectors)

    def groups(self) -> list[Group]:
        """Return two groups: the AV's adapter, and the AR's adapter with its head."""
        return [Group(adapter_parameters(self.av)), Group([*adapter_parameters(self.ar), self.head], self.config.ar_lr_share)]

    def loss(self, rows: list[int], step: int) -> tuple[Tensor, dict[str, float]]:
        """Draw rollouts for the vectors `rows`; return the sum of policy and reconstruction loss, and figures about the rollouts."""
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
        """Return the policy loss and the KL divergence over the rollouts with the largest advantages of each group."""
        by_group = advantage.view(-1, self.config.group)
        chosen = largest_advantages(by_group, self.config.learn_from or self.config.group)
        nats, reference, lengths, order = [], [], [], []
        for part in alike_halves(chosen, lambda i: len(rollouts[i].ids)):
            order += part
            replies = [list(rollouts[i].ids) for i in part]
            with torch.no_grad():
                reference.append(self._reference_nats(vectors[part], replies)[0])
            policy_nats, counts = self._nats(vectors[part], replies)
            nats.append(policy_nats)
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
        """Return the AV as it is now, ready to write explanations."""
        with torch.no_grad():
            for copied, trained in zip(adapter_parameters(self.actor), adapter_parameters(self.av), strict=True):
                copied.copy_(trained)
        return ActivationVerbalizer(self.actor, self.av_sidecar, temperature, self.config.max_tokens)

    def evaluate(self) -> dict[str, float]:
        """Return fve_nrm of the round trip of held-out vectors at the finished pair's temperature, and figures about the explanations."""
        verbalizer = self._verbalizer(self.temperature)
        explanations = verbalizer.verbalize(self.heldout_vectors, [("heldout", i) for i in range(len(self.heldout_vectors))])
        kept = [i for i, explanation in enumerate(explanations) if not explanation.failure]
        figures = {"failed": 1 - len(kept) / len(explanations)}
        if len(kept) < 2:
            return figures
        texts = [explanations[i].text for i in kept]
        with torch.no_grad():
            predicted = torch.cat([self._reconstruct(texts[i : i + 64]).cpu() for i in range(0, len(texts), 64)])
        words = [word for text in texts for word in text.split()]
        return figures | {
            "fve": reconstruction(self.heldout_vectors[kept], predicted).fve_nrm,
            "distinct": len(set(texts)) / len(texts),
            "distinct_words": len(set(words)) / max(len(words), 1),
        }
