"""The last stage, `nla train rl`: reinforcement learning (GRPO) of the AV, with the AR's reconstruction error as reward.

In: the warm-started AV and AR, and raw vectors `[n, d_model]`. Out: both adapters, trained further. Each step:

1. draw a group of explanations for each of a few vectors;
2. reward each with -mse_nrm of the AR's reconstruction (or -log mse), less penalties for length, repeated items and what is known to be
   untrue (`truth`), and -2 for a failed explanation;
3. normalise the rewards within each group to advantages;
4. take one on-policy gradient step for the AV, with a KL penalty towards the warm-started AV, and one for the AR on the same
   explanations; beside it, a few vectors of known state keep the AV to the teacher's words for them (`anchors`).

The warm-started adapter is trained further, never replaced by a fresh one. This follows the paper's public reference
(kitft/natural_language_autoencoders); the penalties, -log mse, the anchors, and learning only from the largest advantages are ours.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isnan

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nla.kernels.padding import alike_parts
from nla.models.adapters import adapter_parameters
from nla.models.loaded import LoadedModel
from nla.pair.contract import Sidecar
from nla.pair.metrics import reconstruction
from nla.support.seeds import seeded_generator
from nla.training.ar import TrainableReconstructor, mse_nrm_loss, with_paraphrase
from nla.training.av import TokenLosses, taught_loss
from nla.training.config import RLConfig
from nla.training.known_vectors import KnownVectors
from nla.training.loop import Group
from nla.training.loss import PART, summed
from nla.training.rl_control import kl_weight, reason_to_end
from nla.training.text_measures import quote_verdicts, repeated_items, repeating_share, reworded
from nla.training.truth import CLAIM_SETTINGS, Truths, claim_grader, untruth_penalties
from nla.verbalizers.av import ActivationVerbalizer
from nla.verbalizers.base import Explanation


@dataclass(frozen=True)
class Rollout:
    """One sampled explanation of a vector."""

    row: int
    """Number of its vector among the training vectors."""
    draw: int
    """Which of the vector's explanations it is. Random draws are keyed by row and draw, so they do not depend on the rest of a batch."""
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


def rewards_of(
    errors: Float[Tensor, " n"], rollouts: Sequence[Rollout], config: RLConfig, truths: Truths | None = None
) -> Float[Tensor, " n"]:
    """Return the reward of each rollout.

    Args:
        errors: mse_nrm of each rollout's reconstruction; ignored for failed rollouts.
        rollouts: in the same order.
        config: kind of reward, penalties for length, for repeated items and for what is untrue, reward of a failure.
        truths: what is known of the training vectors; None where nothing is, and nothing is then untrue.
    """
    quality = -errors if config.reward == "-mse" else -errors.clamp_min(1e-3).log()
    lengths = torch.tensor([len(rollout.ids) for rollout in rollouts], dtype=quality.dtype)
    repeats = torch.tensor([repeated_items(rollout.explanation.text) for rollout in rollouts], dtype=quality.dtype)
    reward = quality - config.length_penalty * (lengths - config.length_from).clamp_min(0) - config.repeat_penalty * repeats
    if truths is not None:
        texts = [rollout.explanation.text for rollout in rollouts]
        reward = reward - untruth_penalties(texts, [rollout.row for rollout in rollouts], truths, config)
    failed = torch.tensor([bool(rollout.explanation.failure) for rollout in rollouts])
    return torch.where(failed, torch.full_like(reward, config.failure_reward), reward)


def policy_loss(
    nats: Float[Tensor, " tokens"],
    reference_nats: Float[Tensor, " tokens"],
    lengths: Sequence[int],
    advantage: Float[Tensor, " n"],
    kl: float,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return the loss and the KL divergence of one on-policy step, both summed over the tokens (the KL divergence in nats).

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
    penalty = (ratio.clamp(max=10).exp() - ratio - 1).sum()
    return (weight * nats).sum() + kl * penalty, penalty.detach()


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
        paraphrases: share of the explanations that the AR also reads with lines reversed or in lower case.
        known: held-out vectors of known state, if there are any.
        anchors: training vectors of known state with the teacher's explanations.
        truths: what is known to be true of the training vectors, if anything is.
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
    paraphrases: float = 0.0
    known: KnownVectors | None = None
    anchors: tuple[Float[Tensor, "k d_model"], Sequence[str]] | None = None
    truths: Truths | None = None
    name: str = "RL"
    part: int = PART

    def __post_init__(self) -> None:
        if self.config.reads_claims:
            claim_grader(CLAIM_SETTINGS)  # refuses before the first step
        self._nats = TokenLosses(self.av, self.av_sidecar, self.config.temperature)
        self._reference_nats = TokenLosses(self.reference, self.av_sidecar, self.config.temperature)
        self._taught_nats = TokenLosses(self.av, self.av_sidecar)
        self._reconstruct = TrainableReconstructor(self.ar, self.head, self.ar_sidecar)
        self._kl_weight = self.config.kl
        self._counts = [0.0, 0.0]

    @property
    def n_examples(self) -> int:
        """Number of training vectors."""
        return len(self.vectors)

    def groups(self) -> list[Group]:
        """Return two groups: the AV's adapter, and the AR's adapter with its head."""
        return [Group(adapter_parameters(self.av)), Group([*adapter_parameters(self.ar), self.head], self.config.ar_lr_share)]

    def follow(self, history: list[dict[str, float]]) -> str:
        """Steer the KL penalty by the steps so far, and return why training should end early, or nothing (`rl_control`)."""
        self._kl_weight = kl_weight(history, self.config)
        return reason_to_end(history, self.config.patience)

    def loss(self, rows: list[int], step: int) -> tuple[Tensor, dict[str, float]]:
        """Draw rollouts for the vectors `rows`; return the sum of policy and reconstruction loss, and figures about the rollouts."""
        rollouts = self._rollouts(rows, step)
        targets = self.vectors[[rollout.row for rollout in rollouts]]
        ar_loss, errors = self._ar_step(targets, rollouts, step)
        rewards = rewards_of(errors, rollouts, self.config, self.truths)
        advantage = advantages(rewards.view(len(rows), self.config.group)).flatten()
        policy, kl = self._policy_step(targets, rollouts, advantage)
        good = torch.tensor([not rollout.explanation.failure for rollout in rollouts])
        texts = [rollout.explanation.text for rollout in rollouts]
        figures = {
            "reward": float(rewards.mean()),
            "kl": kl,
            "kl_weight": self._kl_weight,
            "failed": float((~good).float().mean()),
            "length": sum(len(rollout.ids) for rollout in rollouts) / len(rollouts),
            "distinct": len(set(texts)) / len(texts),
            "repeating": repeating_share(texts),
        }
        if bool(good.any()):
            figures["mse_nrm"] = float(errors[good].mean())
        if self.truths is not None:
            in_context = quote_verdicts(texts, [self.truths.contexts[rollout.row] for rollout in rollouts])["in context"]
            figures |= {} if isnan(in_context) else {"quotes_in_context": in_context}
        loss = policy + ar_loss
        if self.config.anchors and self.anchors is not None and self.anchors[1]:
            anchored = self._anchor_step(*self.anchors, step)
            figures["anchor_nats"] = float(anchored.detach())
            loss = loss + self.config.anchor_weight * anchored
        return loss, figures

    def counts(self) -> list[float]:
        """Return the number of tokens that the latest policy loss is a mean over, and of explanations that the AR's loss is."""
        return self._counts

    def _anchor_step(self, vectors: Float[Tensor, "k d_model"], explanations: Sequence[str], step: int) -> Tensor:
        """Return the cross-entropy (nats per token) of the teacher's explanations of some vectors of known state, with gradient."""
        draws = seeded_generator("anchors", self.config.train.seed, step)
        rows = [int(i) for i in draws.permutation(len(explanations))[: self.config.anchors]]
        return taught_loss(self._taught_nats, vectors, explanations, rows, self.part)[0]

    def _ar_step(self, targets: Float[Tensor, "n d_model"], rollouts: Sequence[Rollout], step: int) -> tuple[Tensor, Float[Tensor, " n"]]:
        """Return the AR's loss over the rollouts that did not fail, with gradient, and mse_nrm of every rollout.

        A share of the explanations is read once more in another form (`paraphrases`); their errors do not count as rewards.
        """
        errors = torch.zeros(len(rollouts))
        self._counts[1] = sum(not rollout.explanation.failure for rollout in rollouts)
        n_good = max(self._counts[1], 1)

        def losses() -> Iterator[Tensor]:
            for part in alike_parts(range(len(rollouts)), lambda i: len(rollouts[i].ids), self.part):
                texts = [rollouts[i].explanation.text or "-" for i in part]
                loss = mse_nrm_loss(self._reconstruct(texts), targets[part])
                errors[part] = loss.detach().float().cpu()
                good = torch.tensor([not rollouts[i].explanation.failure for i in part], device=loss.device)
                yield (loss * good).sum() / n_good
            for part, texts in self._paraphrased(rollouts, step):
                yield mse_nrm_loss(self._reconstruct(texts), targets[part]).sum() / n_good

        return summed(losses(), [*adapter_parameters(self.ar), self.head]), errors

    def _paraphrased(self, rollouts: Sequence[Rollout], step: int) -> Iterator[tuple[list[int], list[str]]]:
        """Yield the numbers of some rollouts that did not fail, with their explanations in another form."""
        texts = {i: rollout.explanation.text for i, rollout in enumerate(rollouts) if not rollout.explanation.failure}
        changed = {i: with_paraphrase(text, self.paraphrases, step, rollouts[i].row, rollouts[i].draw) for i, text in texts.items()}
        other = [i for i, text in changed.items() if text != texts[i]]
        for part in alike_parts(other, lambda i: len(rollouts[i].ids), self.part):
            yield part, [changed[i] for i in part]

    def _policy_step(self, targets: Tensor, rollouts: Sequence[Rollout], advantage: Tensor) -> tuple[Tensor, float]:
        """Return the policy loss, with gradient, and the KL divergence (nats per token), over the rollouts with the largest advantages."""
        by_group = advantage.view(-1, self.config.group)
        chosen = largest_advantages(by_group, self.config.learn_from or self.config.group)
        n_tokens = sum(len(rollouts[i].ids) for i in chosen)
        self._counts[0] = n_tokens
        divergence = 0.0

        def losses() -> Iterator[Tensor]:
            nonlocal divergence
            for part in alike_parts(chosen, lambda i: len(rollouts[i].ids), self.part):
                replies = [list(rollouts[i].ids) for i in part]
                with torch.no_grad():
                    reference = self._reference_nats(targets[part], replies)[0]
                nats, lengths = self._nats(targets[part], replies)
                loss, penalty = policy_loss(nats, reference, lengths, advantage[part], self._kl_weight)
                divergence += float(penalty) / n_tokens
                yield loss / n_tokens

        return summed(losses(), adapter_parameters(self.av)), divergence

    def _rollouts(self, rows: list[int], step: int) -> list[Rollout]:
        verbalizer = self._verbalizer(self.config.temperature)
        draws = [(row, draw) for row in rows for draw in range(self.config.group)]
        keys = [("rollout", self.config.train.seed, step, *draw) for draw in draws]
        completed = verbalizer.complete(self.vectors[[row for row, _ in draws]], keys)
        return [Rollout(*draw, tuple(done.ids), verbalizer.explanation(done.ids)) for draw, done in zip(draws, completed, strict=True)]

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
        if self.known is not None:
            figures |= self.known.figures(verbalizer)
        if len(kept) < 2:
            return figures
        texts = [explanations[i].text for i in kept]
        predicted = self._reconstruct.predict(texts)
        words = [word for text in texts for word in text.split()]
        return figures | {
            "fve": reconstruction(self.heldout_vectors[kept], predicted).fve_nrm,
            "distinct": len(set(texts)) / len(texts),
            "distinct_words": len(set(words)) / max(len(words), 1),
            "repeating": repeating_share(texts),
            "fve_reworded": reconstruction(
                self.heldout_vectors[kept], self._reconstruct.predict([reworded(text) for text in texts])
            ).fve_nrm,
        }
