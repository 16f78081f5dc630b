"""Untrained baseline: the tokens that a vector would predict if it came from the last layer (logit lens), and its distinctive tokens.

Source: nostalgebraist, "interpreting GPT: the logit lens" (2020). There are two lists per vector: the top tokens through the final
norm and the unembedding, and the top tokens of the vector's difference from the mean vector of neutral prose
(`nla.activations.mean_vector`), because the plain list is dominated by what all vectors share.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from nla.activations.mean_vector import mean_vector
from nla.activations.unembedding import token_logits
from nla.models.loaded import LoadedModel
from nla.verbalizers.base import UNUSABLE, Explanation, usable_rows

_TOP = 8


@dataclass(frozen=True)
class LogitLens:
    """Logit lens of one layer's vectors; nothing in it is random."""

    model: LoadedModel
    mean: Float[Tensor, " d_model"]
    layer: int
    name: str = "logit_lens"
    pair: None = None
    matrix: Float[Tensor, "d_model d_model"] | None = None
    """What vectors are multiplied with first; None for the logit lens itself."""

    def verbalize(self, vectors: Float[Tensor, "n d_model"], keys: Sequence[tuple[object, ...]]) -> list[Explanation]:
        """See `Verbalizer`; the text is `top tokens: … | beyond the mean: …`, with the tokens in quotes."""
        usable, top, rising = self.model.run(partial(self._read, vectors))
        texts = [f"top tokens: {self._quoted(a)} | beyond the mean: {self._quoted(b)}" for a, b in zip(top, rising, strict=True)]
        return [Explanation(text) if good else UNUSABLE for text, good in zip(texts, usable, strict=True)]

    @torch.no_grad()
    def _read(self, vectors: Float[Tensor, "n d_model"]) -> tuple[list[bool], list[list[int]], list[list[int]]]:
        finite = torch.nan_to_num(vectors)
        return usable_rows(vectors).tolist(), self._top(finite), self._top(finite - self.mean)

    def _top(self, vectors: Float[Tensor, "n d_model"]) -> list[list[int]]:
        top: list[list[int]] = self.logits(vectors).topk(_TOP).indices.tolist()
        return top

    @torch.no_grad()
    def logits(self, vectors: Float[Tensor, "n d_model"]) -> Float[Tensor, "n vocab"]:
        """Return the logits that the lens gives for vectors of its layer. The caller runs it through `LoadedModel.run`."""
        moved = vectors.to(self.model.device) if self.matrix is None else vectors.to(self.model.device) @ self.matrix.T
        return token_logits(self.model, moved)

    def _quoted(self, ids: list[int]) -> str:
        return ", ".join(f'"{self.model.tokenizer.decode([i])}"' for i in ids)


def build(model: LoadedModel, layer: int | None, nla: str | None) -> LogitLens:
    """Make the logit lens for vectors of `layer`; `nla` is ignored, because no trained pair is used."""
    layer = model.check_layer(layer)
    return LogitLens(model, mean_vector(model, layer), layer)
