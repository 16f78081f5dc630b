"""The field's measures of how well vectors are reconstructed, on unit vectors.

With gold g and prediction p brought to unit length, mse_nrm = |p - g|^2 = 2 (1 - cos). The headline is
fve_nrm = 1 - mean |p - g|^2 / mean |g - mean(g)|^2, on held-out documents with the held-out denominator. fve_nrm_meannorm divides
by the error of the re-normalised mean instead and reads higher: the two are never mixed.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize


@dataclass(frozen=True)
class ReconstructionMetrics:
    """Measures over n reconstructed vectors."""

    fve_nrm: float
    fve_nrm_meannorm: float
    mse_nrm: float
    cosine: float
    centred_cosine: float
    """Mean cosine after the mean of the gold vectors is subtracted from both sides: agreement beyond what all vectors share."""
    n: int


def unit(vectors: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_model"]:
    """Return vectors of length 1, in float64."""
    return normalize(vectors.double(), dim=-1)


def mse_nrm(gold: Float[Tensor, "n d_model"], predicted: Float[Tensor, "n d_model"]) -> Float[Tensor, " n"]:
    """Return the squared distance of each pair of unit vectors, from 0 (same direction) to 4 (opposite)."""
    return (unit(predicted) - unit(gold)).square().sum(dim=-1)


def reconstruction(gold: Float[Tensor, "n d_model"], predicted: Float[Tensor, "n d_model"]) -> ReconstructionMetrics:
    """Return all measures of a set of reconstructions.

    Args:
        gold: raw vectors that were read.
        predicted: the AR's reconstructions from their explanations; only directions count.

    Raises:
        ValueError: fewer than two vectors, or gold vectors that are all equal (there is no variance to explain).
    """
    g, p = unit(gold), unit(predicted)
    mean = g.mean(dim=0, keepdim=True)
    variance = (g - mean).square().sum(dim=-1).mean()
    if len(g) < 2 or float(variance) < 1e-12:
        raise ValueError(
            f"{len(g)} gold vectors with variance {float(variance):.1e}: there is no variance to explain; give different vectors."
        )
    error = (p - g).square().sum(dim=-1).mean()
    to_mean = (g - normalize(mean, dim=-1)).square().sum(dim=-1).mean()
    centred = torch.nn.functional.cosine_similarity(g - mean, p - mean, dim=-1).mean()
    return ReconstructionMetrics(
        fve_nrm=float(1 - error / variance),
        fve_nrm_meannorm=float(1 - error / to_mean),
        mse_nrm=float(error),
        cosine=float((g * p).sum(dim=-1).mean()),
        centred_cosine=float(centred),
        n=len(g),
    )


def retrieval_hits(
    gold: Float[Tensor, "n d_model"], predicted: Float[Tensor, "n d_model"], among: int, generator: torch.Generator
) -> Bool[Tensor, " n"]:
    """Return for each prediction whether, of `among` gold vectors (its own and random others), its own is nearest by cosine.

    Raises:
        ValueError: fewer vectors than candidates.
    """
    g, p = unit(gold), unit(predicted)
    if len(g) < among:
        raise ValueError(f"retrieval among {among} needs as many vectors; found {len(g)}.")
    similarity = p @ g.T
    hits = []
    for row in range(len(g)):
        others = torch.randperm(len(g) - 1, generator=generator)[: among - 1]
        others = others + (others >= row)  # every index but the row's own
        hits.append(bool((similarity[row, others] < similarity[row, row]).all()))
    return torch.tensor(hits)
