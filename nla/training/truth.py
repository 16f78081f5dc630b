"""What is known to be true of a training vector, and what an explanation says that is not.

The reward of reinforcement learning is the AR's, and the AR does not mind an invented word that reconstructs as well as the true one.
Two kinds of statement can be checked without it: words that an explanation quotes, against the text; and the claim that the model
believes itself tested, against the teacher's explanation, which makes it only where that state was put into the model. The penalties
for what is untrue are ours; the public reference has none.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nla.support.errors import ConfigError
from nla.training.config import RLConfig
from nla.training.data.claims import grader
from nla.training.text_measures import invented_words

CLAIM_SETTINGS = "rl.claim_penalty and rl.silence_penalty"


@dataclass(frozen=True)
class Truths:
    """One entry per training vector in either list."""

    contexts: Sequence[str]
    """The text up to the token that the vector was read at."""
    explanations: Sequence[str]
    """The teacher's explanations."""


def untruth_penalties(texts: Sequence[str], rows: Sequence[int], truths: Truths, config: RLConfig) -> Float[Tensor, " n"]:
    """Return what each explanation loses for untrue statements, in units of the reward, never negative.

    An explanation loses `invented_penalty` per quoted word that its text does not hold, nor another word of that stem;
    `claim_penalty` where it claims evaluation awareness and the teacher does not; and `silence_penalty` where the teacher claims it and
    the explanation does not.

    Args:
        texts: explanations.
        rows: the training vector of each.
        truths: of all training vectors.
        config: weights of the penalties.

    Raises:
        ConfigError: claims have a penalty, but no grader is installed that could read them.
    """
    penalties = torch.zeros(len(texts))
    if config.invented_penalty:
        counts = [len(invented_words(text, truths.contexts[row])) for text, row in zip(texts, rows, strict=True)]
        penalties += config.invented_penalty * torch.tensor(counts, dtype=torch.float32)
    if config.reads_claims:
        claims = torch.tensor(claim_grader(CLAIM_SETTINGS)([*texts, *(truths.explanations[row] for row in rows)]))
        written, taught = claims[: len(texts)], claims[len(texts) :]
        penalties += config.claim_penalty * (written & ~taught).float() + config.silence_penalty * (taught & ~written).float()
    return penalties


def claim_grader(settings: str) -> Callable[[Sequence[str]], list[bool]]:
    """Return the function that tells of each explanation whether it claims evaluation awareness.

    Args:
        settings: what asks for it, for the message.

    Raises:
        ConfigError: no grader is installed.
    """
    grade = grader()
    if grade is None:
        raise ConfigError(f"{settings}: the project's grader has to read claims, and needs Inspect. Install inspect-ai, or leave this out.")
    return grade
