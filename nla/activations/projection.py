"""Projection: remove the component along a direction from vectors."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize


def project_out(vectors: Float[Tensor, "n d_model"], direction: Float[Tensor, " d_model"]) -> Float[Tensor, "n d_model"]:
    """Return vectors without their component along a direction of any length other than zero. The arithmetic is in float64.

    Steering adds a direction to the residual stream. With that direction projected out, a verbalizer cannot simply read what was added.
    """
    unit = normalize(direction.double(), dim=0)
    return (vectors.double() - (vectors.double() @ unit)[:, None] * unit).to(vectors.dtype)
