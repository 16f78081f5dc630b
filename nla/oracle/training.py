"""Training of an oracle: the cross-entropy of Yes and No over questions whose answers are known."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nla.models.adapters import adapter_parameters
from nla.oracle.evaluation import areas_by_family
from nla.oracle.model import Asked, Oracle
from nla.oracle.questions import Question
from nla.support.seeds import seeded_generator
from nla.training.loop import Group

_EVALUATED = 256
"""Held-out questions per evaluation during training."""


@dataclass
class OracleStage:
    """The training of one arm.

    Args:
        oracle: with a trainable adapter.
        questions: to train on.
        heldout: questions about other documents.
        with_vector: whether the vector is given; the arm without it learns what questions alone give away.
        seed: of the wordings.
    """

    oracle: Oracle
    questions: Sequence[Question]
    heldout: Sequence[Question]
    with_vector: bool = True
    seed: int = 0
    name: str = "oracle"
    part: int = 1

    @property
    def n_examples(self) -> int:
        """Number of questions."""
        return len(self.questions)

    def groups(self) -> list[Group]:
        """Return the adapter's parameters."""
        return [Group(adapter_parameters(self.oracle.role))]

    def loss(self, rows: list[int], step: int) -> tuple[Tensor, dict[str, float]]:
        """Return the mean cross-entropy of the right answers (nats), and the share of right ones."""
        chosen = [self.questions[i] for i in rows]
        asked = [
            Asked(question.seen_wording(self.seed, step, row), question.vector if self.with_vector else None)
            for row, question in zip(rows, chosen, strict=True)
        ]
        logits = self.oracle.logits(asked)
        targets = torch.tensor([0 if question.answer else 1 for question in chosen], device=logits.device)
        loss = nn.functional.cross_entropy(logits, targets)
        return loss, {"right": float((logits.argmax(dim=1) == targets).float().mean())}

    def evaluate(self) -> dict[str, float]:
        """Return the mean AUROC over families on a seeded part of the held-out questions, in unseen wordings."""
        order = seeded_generator("oracle held out").permutation(len(self.heldout))[:_EVALUATED]
        part = [self.heldout[i] for i in order]
        asked = [Asked(question.unseen_wordings()[0], question.vector if self.with_vector else None) for question in part]
        areas = areas_by_family(part, self.oracle.log_odds(asked).tolist())
        return {"auroc": sum(areas.values()) / len(areas)} if areas else {}
