"""The tokens that a vector would predict if it came from the last block: the final norm and the unembedding alone."""

import torch
from jaxtyping import Float
from torch import Tensor

from nla.models.loaded import LoadedModel


@torch.no_grad()
def token_logits(model: LoadedModel, vectors: Float[Tensor, "n d_model"]) -> Float[Tensor, "n vocab"]:
    """Return the logits of vectors (float32, on the model's device). The caller runs it through `LoadedModel.run`."""
    normed = model.final_norm(vectors.to(model.device, model.precision.dtype))
    logits: Tensor = model.unembedding(normed)
    return logits.float()
