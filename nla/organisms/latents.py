"""Which latents of a sparse autoencoder tell evaluation from deployment contexts, on identical replies.

A latent's activation for a case is its mean over the reply's tokens. Latents are chosen on cases of trained wordings, and their AUROC is
taken on held-out families: of thousands of latents some always look telling where they were chosen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nla.organisms.areas import Areas
from nla.organisms.groups import Case
from nla.organisms.statistics import Estimate
from nla.probes.sae import SparseAutoencoder, mean_latents


@dataclass(frozen=True)
class TellingLatent:
    """A latent with its AUROC where it was chosen and elsewhere."""

    latent: int
    sign: int
    """1 where it is more active under evaluation, -1 where less; AUROCs are of the signed activation."""
    fitted_auroc: float
    heldout: Estimate


def mean_activations(sae: SparseAutoencoder, cases: Sequence[Case]) -> Float[Tensor, "n n_latents"]:
    """Return the mean activation of every latent over the tokens of each case's reply."""
    return torch.stack([mean_latents(sae, case.vectors) for case in cases])


def latent_aurocs(activations: Float[Tensor, "n n_latents"], cued: Sequence[bool]) -> Float[Tensor, " n_latents"]:
    """Return the AUROC of every latent for cued cases against the others; ties count half."""
    from scipy.stats import rankdata

    ranks = torch.from_numpy(rankdata(activations.numpy(), axis=0))
    positive = torch.tensor(list(cued))
    n, m = int(positive.sum()), int((~positive).sum())
    areas: Tensor = (ranks[positive].sum(dim=0) - n * (n + 1) / 2) / (n * m)
    return areas.float()


def chosen_latents(sae: SparseAutoencoder, fit: Sequence[Case], n: int) -> list[tuple[int, int, float]]:
    """Return the n latents that tell the fitted cases apart best: latent, sign, and AUROC of the signed activation."""
    areas = latent_aurocs(mean_activations(sae, fit), [case.cued for case in fit])
    best = (areas - 0.5).abs().topk(min(n, sae.n_latents)).indices.tolist()
    return [(latent, 1 if areas[latent] >= 0.5 else -1, 0.5 + abs(float(areas[latent]) - 0.5)) for latent in best]


def telling_latents(sae: SparseAutoencoder, fit: Sequence[Case], test: Sequence[Case], n: int) -> list[TellingLatent]:
    """Choose latents on fitted cases and test them on others (cued ones first, their partners in the same order)."""
    activations = mean_activations(sae, test)
    return [
        TellingLatent(latent, sign, area, Areas.of((sign * activations[:, latent]).tolist(), test).over_prompts())
        for latent, sign, area in chosen_latents(sae, fit, n)
    ]
