"""What reinforcement learning adapts as it goes: the weight of the KL penalty, and when to end. Both follow from the steps' metrics.

The weight is steered so that the KL divergence from the warm start stays near a target (after Ziegler et al. 2019, with steps of one
tenth instead of a proportional controller). Training ends early where the reconstruction no longer rises, or where what the reward
does not ask for, distinct explanations and the known states, is lost for several evaluations.
"""

from collections.abc import Sequence

from nla.training.config import RLConfig

_TOLERANCE = 1.5
"""The weight stays as it is while the KL divergence is within this factor of its target."""
_CHANGE = 1.1
_FARTHEST = 30.0
"""Largest factor between the weight and the config's."""
_LOST = 0.05
_KEPT = {"heldout_distinct": "the share of distinct explanations", "heldout_known_auroc": "the AUROC of known states"}


def kl_weight(history: Sequence[dict[str, float]], config: RLConfig) -> float:
    """Return the weight of the KL penalty at the next step.

    Args:
        history: metrics of the steps so far, with `kl` in nats per token.
        config: the first weight (`kl`) and the target (`kl_target`); without a target the weight never changes.
    """
    weight = config.kl
    if config.kl_target is None:
        return weight
    for figures in history:
        divergence = figures["kl"]
        factor = _CHANGE if divergence > config.kl_target * _TOLERANCE else 1 / _CHANGE if divergence < config.kl_target / _TOLERANCE else 1
        weight = min(max(weight * factor, config.kl / _FARTHEST), config.kl * _FARTHEST)
    return weight


def reason_to_end(history: Sequence[dict[str, float]], patience: int | None) -> str:
    """Return why training should end, in words that follow "because"; empty where it should go on.

    Args:
        history: metrics of the steps so far; those of steps with an evaluation hold `heldout_` figures.
        patience: evaluations without a better fve_nrm, or below what was reached otherwise, after which training ends; None never ends it.
    """
    evaluations = [figures for figures in history if "heldout_fve" in figures]
    if patience is None or len(evaluations) <= patience:
        return ""
    before, since = evaluations[:-patience], evaluations[-patience:]
    if max(figures["heldout_fve"] for figures in since) <= max(figures["heldout_fve"] for figures in before):
        return f"held-out fve_nrm has not risen for {patience} evaluations"
    for name, what in _KEPT.items():
        if all(name in figures for figures in evaluations):
            best = max(figures[name] for figures in before)
            if max(figures[name] for figures in since) < best - _LOST:
                return f"{what} has been more than {_LOST} below its best ({best:.2f}) for {patience} evaluations"
    return ""
