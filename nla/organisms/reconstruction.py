"""The pair's reconstruction on an organism: does an autoencoder trained on the base model still describe these vectors?"""

from collections.abc import Sequence

import torch

from nla.models.loaded import LoadedModel
from nla.organisms.groups import Case
from nla.pair.known import default_pair
from nla.pair.metrics import reconstruction
from nla.pair.reconstructor import load_reconstructor
from nla.support.errors import ConfigError
from nla.support.seeds import seeded_generator
from nla.verbalizers.av import build

_VECTORS = 48


def reconstruction_of(model: LoadedModel, layer: int, cases: Sequence[Case]) -> float | None:
    """Return fve_nrm of the pair known for the base model on seeded vectors of the cases; None where no pair is known for the layer."""
    try:
        pair = default_pair(model)
    except ConfigError:
        return None
    if pair.layer != layer:
        return None
    draws = seeded_generator("organism fve")
    vectors = torch.stack([case.vectors[int(draws.integers(len(case.vectors)))] for case in _spread(cases)])
    verbalizer = build(model.base, layer, None)
    explained = verbalizer.verbalize(vectors, [("organism fve", i) for i in range(len(vectors))])
    used = [i for i, explanation in enumerate(explained) if not explanation.failure]
    if len(used) < 2:
        return None
    reconstructor = load_reconstructor(pair.ar, model.base)
    return float(reconstruction(vectors[used], reconstructor.reconstruct([explained[i].text for i in used])).fve_nrm)


def _spread(cases: Sequence[Case]) -> list[Case]:
    return list(cases[:: max(len(cases) // _VECTORS, 1)][:_VECTORS])
