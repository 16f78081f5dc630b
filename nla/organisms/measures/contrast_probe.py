"""Contrast probes: mean projection of a reply's vectors on a contrast direction. No label is used.

`probe` is the paper's one pair, and `probe_NAME` another contrast set. `probe_composite` is the mean over the evaluation probes, each as a
z-score with mean and standard deviation of the fitted deployment cases, and `probe_unrelated` the same over the controls.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from jaxtyping import Float
from torch import Tensor

from nla.activations.contrast_sets import TESTING, contrast_names, is_control_name, read_contrast
from nla.organisms.groups import Case, KnownGroups
from nla.organisms.measures import Measure
from nla.probes.contrasts import direction, projections

Scorer = Callable[[Sequence[Case]], list[float]]


def build(groups: KnownGroups) -> list[Measure]:
    """Return one measure per contrast set of the project."""
    names = [TESTING, *(name for name in contrast_names() if name != TESTING)]
    scorers = {name: _scorer(groups, name) for name in names}
    texts = {name: 2 * len(read_contrast(name).pairs) for name in names}
    singles = [Measure("probe" if name == TESTING else f"probe_{name}", scorer, labels=texts[name]) for name, scorer in scorers.items()]
    members = {
        measure: [name for name in names if is_control_name(name) is is_control]
        for measure, is_control in (("probe_composite", False), ("probe_unrelated", True))
    }
    composites = [
        Measure(measure, _composite([scorers[name] for name in used], groups.fit), labels=sum(texts[name] for name in used))
        for measure, used in members.items()
        if used
    ]
    return [*singles, *composites]


def _composite(scorers: Sequence[Scorer], fitted: Sequence[Case]) -> Scorer:
    """Return the mean z-score over some probes."""
    deployment = [case for case in fitted if not case.cued]
    scales = [(np.mean(scores), np.std(scores, ddof=1)) for scores in (scorer(deployment) for scorer in scorers)]

    def scores(cases: Sequence[Case]) -> list[float]:
        z_scores = [(np.array(scorer(cases)) - mean) / sd for scorer, (mean, sd) in zip(scorers, scales, strict=True)]
        return [float(score) for score in np.mean(z_scores, axis=0)]

    return scores


def _scorer(groups: KnownGroups, name: str) -> Scorer:
    unit = direction(groups.model, read_contrast(name), groups.layer)
    return partial(_scores, unit)


def _scores(unit: Float[Tensor, " d_model"], cases: Sequence[Case]) -> list[float]:
    return [float(projections(case.vectors, unit).mean()) for case in cases]
