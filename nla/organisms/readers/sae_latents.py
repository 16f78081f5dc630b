"""Latents of a sparse autoencoder: the one that tells the fitted cases apart best, tested on the others.

The autoencoder is that of the groups (`audit readers --sae`), or the one that ships for the base model.
"""

import functools
from collections.abc import Sequence
from pathlib import Path

from nla.models.loaded import LoadedModel
from nla.organisms.groups import Case, KnownGroups
from nla.organisms.latents import chosen_latents, mean_activations
from nla.organisms.measures import Measure
from nla.pair.known import hub_id
from nla.probes.sae import SparseAutoencoder, read_sae

SHIPPED = Path(__file__).parents[2] / "probes" / "saes"
"""Autoencoders that ship with the project, a folder each."""


def build(groups: KnownGroups) -> list[Measure]:
    """Choose the latent on the groups' fitted cases; nothing where there is no autoencoder for the model and layer.

    Raises:
        ContractError: the autoencoder that was given is for another width or layer.
    """
    sae = known_sae(groups)
    if sae is None:
        return []
    [(latent, sign, _)] = chosen_latents(sae, groups.fit, 1)

    def score(cases: Sequence[Case]) -> list[float]:
        return (sign * mean_activations(sae, cases)[:, latent]).tolist()

    return [Measure("sae_latent", score, labels=len(groups.fit))]


def known_sae(groups: KnownGroups) -> SparseAutoencoder | None:
    """Return the autoencoder that the groups name, or the shipped one for their model and layer."""
    if groups.sae is not None:
        given = read_sae(groups.sae, groups.layer)
        given.check(groups.model, groups.layer)
        return given
    sae = shipped_sae(groups.model)
    return sae if sae is not None and sae.layer == groups.layer else None


@functools.lru_cache(maxsize=4)
def shipped_sae(model: LoadedModel) -> SparseAutoencoder | None:
    """Return the autoencoder that ships for a model's base, or None."""
    autoencoders = (read_sae(folder) for folder in sorted(SHIPPED.glob("*/")))
    return next((sae for sae in autoencoders if sae.model == hub_id(model.base)), None)
