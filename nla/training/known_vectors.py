"""Held-out vectors of models whose state is known, on which training watches whether the explanations tell that state."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nla.support.seeds import seeded_generator
from nla.training.data.claims import grader
from nla.training.data.shards import Dataset
from nla.verbalizers.base import Verbalizer

KNOWN = "known state/"
"""How the document ids of such vectors begin."""
_MOST = {True: 48, False: 192}
"""Vectors with the state and without: more make an evaluation slower than the steps between two. A false claim counts if it is made at
any of a prompt's tokens, so its share per token has to be known to within a percent."""


@dataclass(frozen=True)
class KnownVectors:
    """Vectors under contexts that the model takes for an evaluation, and others under contexts that it does not."""

    carrying: Float[Tensor, "n d_model"]
    others: Float[Tensor, "m d_model"]

    def figures(self, verbalizer: Verbalizer) -> dict[str, float]:
        """Return the share of explanations that claim awareness in either group, and the AUROC of a single claim.

        Empty where there is no such vector, or no grader is installed.
        """
        grade = grader()
        if grade is None or not (len(self.carrying) and len(self.others)):
            return {}
        shares = []
        for name, vectors in (("carrying", self.carrying), ("others", self.others)):
            explanations = verbalizer.verbalize(vectors, [("known", name, i) for i in range(len(vectors))])
            claims = grade([explanation.text for explanation in explanations])
            shares.append(sum(claims) / len(claims))
        return {"claims": shares[0], "false_claims": shares[1], "known_auroc": (1 + shares[0] - shares[1]) / 2}


def known_vectors(data: Dataset, rows: list[int]) -> KnownVectors:
    """Return the vectors of known state among the given rows of a data set.

    A row whose explanation by the teacher claims awareness carries the state; without a grader no row does.
    """
    grade = grader()
    known = [row for row in rows if data.doc_ids[row].startswith(KNOWN)] if grade else []
    claims = grade([data.explanations[row] for row in known]) if grade else []
    groups = []
    for wanted in (True, False):
        group = [row for row, claim in zip(known, claims, strict=True) if claim is wanted]
        order = seeded_generator("known vectors", wanted).permutation(len(group))[: _MOST[wanted]]
        groups.append(torch.from_numpy(data.vectors[[group[i] for i in order]]))
    return KnownVectors(*groups)
