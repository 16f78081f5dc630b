"""Logit lens and Jacobian lens: how far words of evaluation stand out in what the lens says of a reply's vectors. No label is used.

The score of a vector is the mean logit of the words, as a z-score over the vocabulary; that of a case is the mean over its tokens. The
same with unrelated words is the control.
"""

from collections.abc import Sequence
from functools import partial

import torch

from nla.models.chat_template import encode_content
from nla.organisms.groups import Case, KnownGroups
from nla.organisms.measures import Measure
from nla.support.errors import ConfigError
from nla.support.plugins import VERBALIZERS
from nla.verbalizers.logit_lens import LogitLens

WORDS = ("test", "tests", "testing", "evaluation", "exam", "examination", "assessment", "benchmark", "graded", "grading", "score", "scored")
UNRELATED = ("river", "rivers", "cooking", "furniture", "bread", "mountain", "garden", "weather", "painted", "painting", "song", "sailed")


def build(groups: KnownGroups) -> list[Measure]:
    """Return a measure per lens and list of words; the Jacobian lens only where one is known for the model and layer."""
    readers = []
    for name in ("logit_lens", "jacobian_lens"):
        try:
            lens: LogitLens = VERBALIZERS.build(name, groups.model.base, groups.layer, None)
        except ConfigError:
            continue
        for suffix, words in (("words", WORDS), ("unrelated", UNRELATED)):
            tokens = sorted({encode_content(groups.model.tokenizer, f" {word}")[0] for word in words})
            readers.append(Measure(f"{name}_{suffix}", partial(_scores, lens, tokens)))
    return readers


def _scores(lens: LogitLens, tokens: list[int], cases: Sequence[Case]) -> list[float]:
    return [lens.model.run(partial(_score, lens, tokens, case)) for case in cases]


def _score(lens: LogitLens, tokens: list[int], case: Case) -> float:
    with torch.no_grad():
        logits = lens.logits(case.vectors - lens.mean)
    standardised = (logits[:, tokens].mean(dim=1) - logits.mean(dim=1)) / logits.std(dim=1)
    return float(standardised.mean())
