"""Linear probe: logistic regression on the mean of a reply's layer-normalised vectors, fitted on trained wordings and other prompts."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from nla.organisms.groups import Case, KnownGroups
from nla.organisms.measures import Measure

_C = 0.02
"""Inverse strength of the L2 penalty: there are more dimensions than cases."""


def build(groups: KnownGroups) -> list[Measure]:
    """Fit the probe on the groups' fitted cases."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(C=_C, max_iter=2_000))
    probe.fit(_features(groups.fit), [case.cued for case in groups.fit])
    return [
        Measure("linear_probe", lambda cases: [float(value) for value in probe.decision_function(_features(cases))], labels=len(groups.fit))
    ]


def _features(cases: Sequence[Case]) -> NDArray[np.float32]:
    rows = [torch.nn.functional.layer_norm(case.vectors, case.vectors.shape[-1:]).mean(dim=0) for case in cases]
    features: NDArray[np.float32] = torch.stack(rows).numpy()
    return features
