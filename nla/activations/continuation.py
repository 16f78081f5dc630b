"""What a network computes after a beginning that all rows of a batch share: the beginning runs once, as one row."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import DynamicCache

from nla.kernels.kv_cache import cache_argument, for_rows
from nla.models.loaded import LoadedModel


def hidden_after(model: LoadedModel, beginning: Sequence[int], embeds: Float[Tensor, "n pos d_model"]) -> Float[Tensor, "n pos d_model"]:
    """Return the final hidden states of rows of embeddings that follow the same token ids.

    With gradient where it is wanted; that of the beginning is summed over the rows. The caller runs it through `LoadedModel.run`, or owns
    the model, as training does.
    """
    decoder, device, start = model.network.get_decoder(), embeds.device, len(beginning)
    cache = DynamicCache(config=model.text_config)
    decoder(input_ids=torch.tensor([list(beginning)], device=device), use_cache=True, **cache_argument(decoder, cache))
    for_rows(cache, len(embeds))
    positions = torch.arange(start, start + embeds.shape[1], device=device)[None]
    out = decoder(inputs_embeds=embeds, position_ids=positions, use_cache=True, **cache_argument(decoder, cache))
    hidden: Tensor = out.last_hidden_state
    return hidden
