"""The oracle as a reader of known groups: the mean log-odds with which it says that the assistant believes that it is being evaluated."""

from collections.abc import Sequence

import torch

from nla.oracle.model import Asked
from nla.oracle.questions import N_UNSEEN, WORDINGS
from nla.oracle.saved import load_oracle
from nla.organisms.groups import Case, KnownGroups
from nla.organisms.measures import Measure

_FAMILY = "evaluation"


def readers(groups: KnownGroups) -> list[Measure]:
    """Return the reader, where the groups name an oracle. It asks in the wordings that it was not trained on.

    Raises:
        ContractError: the folder holds no oracle for the model and layer.
    """
    if groups.oracle is None:
        return []
    oracle, meta = load_oracle(groups.oracle, groups.model.base, groups.layer)
    wordings = WORDINGS[_FAMILY][-N_UNSEEN:]

    def score(cases: Sequence[Case]) -> list[float]:
        chosen = [(i, position) for i, case in enumerate(cases) for position in case.sampled(groups.tokens)]
        asked = [Asked(words, cases[i].vectors[position]) for words in wordings for i, position in chosen]
        odds = groups.model.run(lambda: oracle.log_odds(asked)).reshape(len(wordings), len(chosen)).mean(dim=0)
        owners = torch.tensor([i for i, _ in chosen])
        sums = torch.zeros(len(cases)).index_add_(0, owners, odds)
        return (sums / torch.bincount(owners, minlength=len(cases)).clamp_min(1)).tolist()

    labels = meta.labels_by_family.get(_FAMILY, 0)
    return [Measure("oracle", score, cheap=False, labels=labels, reads="sampled tokens")]
