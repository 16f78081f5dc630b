"""The mean residual stream on neutral prose, which the logit lens subtracts from a vector before it decodes it."""

import functools

import torch
from jaxtyping import Float
from torch import Tensor

from nla.activations.capture import residual_stream
from nla.models.chat_template import encode
from nla.models.loaded import LoadedModel

NEUTRAL_TEXTS = (
    "The river rises in the hills north of the town and runs for forty miles before it meets the sea. In spring the water is high, "
    "and barges carry timber down to the mills; by August it is so low that children wade across at the old ford.",
    "To make the dough, stir the yeast into a cup of warm water and leave it for ten minutes. Add the flour and salt, knead until it "
    "is smooth, cover the bowl with a cloth and let it rise somewhere warm until it has doubled in size.",
    "She closed the shop a little after six, counted the till twice and walked home along the canal. The lamps were coming on in the "
    "windows, and somewhere a radio was playing a song she had not heard since she was a girl.",
    "Shares of the carmaker fell three percent on Tuesday after the company said that deliveries in the second quarter had been slower "
    "than planned. Analysts blamed a shortage of parts and expected sales to recover by the autumn.",
    "Photosynthesis takes place in the chloroplasts, where chlorophyll absorbs light. The energy splits water into hydrogen and oxygen; "
    "the hydrogen is then used to turn carbon dioxide into sugars, which the plant stores as starch.",
    "Hi Martin, thanks for sending the drawings. The kitchen looks great, but could we move the window about half a metre to the left? "
    "I will be on site on Thursday morning if you want to go through the details there. Best wishes, Ellen",
    "def mean(values):\n    total = 0.0\n    for value in values:\n        total += value\n    return total / len(values)\n\n"
    "The function walks through the list once and divides the sum by the number of items.",
    "The treaty was signed in the winter of that year, after months of talks. It fixed the border along the mountains, opened the ports "
    "to merchants of both countries, and obliged each side to return the prisoners it held.",
)
"""Short passages of several kinds, written for this project."""


@functools.lru_cache(maxsize=16)
def mean_vector(model: LoadedModel, layer: int) -> Float[Tensor, " d_model"]:
    """Return the mean residual stream after block `layer` over the tokens of `NEUTRAL_TEXTS` (float32, on the CPU).

    The first 4 positions of each text are left out, because many models use them as
    attention sinks, whose norms are tens of times those of other tokens.
    """
    streams = [residual_stream(model, encode(model.tokenizer, text), layer)[4:].cpu() for text in NEUTRAL_TEXTS]
    return torch.cat(streams).mean(dim=0)
