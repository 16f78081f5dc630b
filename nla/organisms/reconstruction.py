"""The pair's reconstruction on an organism: does an autoencoder trained on the base model still describe these vectors?"""

from collections.abc import Sequence

import torch

from nla.models.loaded import LoadedModel
from nla.organisms.groups import Case
from nla.pair.known import ar_beside, default_pair
from nla.pair.metrics import reconstruction
from nla.pair.reconstructor import load_reconstructor
from nla.support.errors import ConfigError
from nla.support.seeds import seeded_generator
from nla.verbalizers.av import build

_VECTORS = 48


def reconstruction_of(model: LoadedModel, layer: int, cases: Sequence[Case], pair: str | None = None) -> float | None:
    """Return fve_nrm of a pair on seeded vectors of the cases.

    Without a pair it is that of the one known for the base model, or None where none is known for the layer.
    """
    ar = _known_ar(model, layer) if pair is None else ar_beside(pair)
    if ar is None:
        return None
    draws = seeded_generator("organism fve")
    vectors = torch.stack([case.vectors[int(draws.integers(len(case.vectors)))] for case in _spread(cases)])
    verbalizer = build(model.base, layer, pair, reconstruct="false")
    explained = verbalizer.verbalize(vectors, [("organism fve", i) for i in range(len(vectors))])
    used = [i for i, explanation in enumerate(explained) if not explanation.failure]
    if len(used) < 2:
        return None
    reconstructor = load_reconstructor(ar, model.base)
    return float(reconstruction(vectors[used], reconstructor.reconstruct([explained[i].text for i in used])).fve_nrm)


def _known_ar(model: LoadedModel, layer: int) -> str | None:
    try:
        known = default_pair(model)
    except ConfigError:
        return None
    return known.ar if known.layer == layer else None


def _spread(cases: Sequence[Case]) -> list[Case]:
    return list(cases[:: max(len(cases) // _VECTORS, 1)][:_VECTORS])
