"""Contrast probes: mean projection of a reply's vectors on a contrast direction. `probe` is the paper's one pair; no label is used."""

from collections.abc import Callable, Sequence
from functools import partial

from jaxtyping import Float
from torch import Tensor

from nla.activations.contrast_sets import TESTING, contrast_names, read_contrast
from nla.organisms.groups import Case, KnownGroups
from nla.organisms.measures import Measure
from nla.probes.contrasts import direction, projections


def build(groups: KnownGroups) -> list[Measure]:
    """Return one measure per contrast set of the project."""
    names = [TESTING, *(name for name in contrast_names() if name != TESTING)]
    return [Measure("probe" if name == TESTING else f"probe_{name}", _scorer(groups, name)) for name in names]


def _scorer(groups: KnownGroups, name: str) -> Callable[[Sequence[Case]], list[float]]:
    unit = direction(groups.model, read_contrast(name), groups.layer)
    return partial(_scores, unit)


def _scores(unit: Float[Tensor, " d_model"], cases: Sequence[Case]) -> list[float]:
    return [float(projections(case.vectors, unit).mean()) for case in cases]
