"""Where a sparse autoencoder's latents are most active: excerpts of texts with the token marked."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from nla.activations.capture import streams
from nla.models.chat_template import encode_content
from nla.models.loaded import LoadedModel
from nla.probes.sae import SparseAutoencoder

_BEFORE, _AFTER = 8, 3
"""Tokens of an excerpt before and after the marked one."""


@dataclass(frozen=True)
class Excerpt:
    """A token at which a latent is active."""

    before: str
    token: str
    after: str
    activation: float

    @property
    def text(self) -> str:
        """The excerpt on one line, with the token between guillemets."""
        return f"{self.before}«{self.token}»{self.after}".replace("\n", "\\n")


def top_excerpts(
    model: LoadedModel, sae: SparseAutoencoder, texts: Sequence[str], latents: Sequence[int], n: int = 3
) -> dict[int, list[Excerpt]]:
    """Return for each latent the texts' tokens at which it is most active, the strongest first and one per text at most.

    Raises:
        ContractError: the model has another width than the autoencoder.
        ConfigError: a text is longer than the context window.
    """
    sae.check(model, sae.layer)
    rows = [encode_content(model.tokenizer, text) for text in texts]
    wanted = torch.tensor(list(latents))
    hits: dict[int, list[tuple[float, int, int]]] = {latent: [] for latent in latents}
    for number, stream in streams(model, [row for row in rows if len(row) > 1], sae.layer):
        active = sae.encode(stream[1:])
        for latent, place in zip(latents, wanted, strict=True):
            values = torch.where(active.ids == place, active.values, 0.0).max(dim=1).values
            at = int(values.argmax())
            if float(values[at]) > 0:
                hits[latent].append((float(values[at]), number, at + 1))
    usable = [row for row in rows if len(row) > 1]
    return {
        latent: [_excerpt(model, usable[number], at, value) for value, number, at in sorted(found, reverse=True)[:n]]
        for latent, found in hits.items()
    }


def _excerpt(model: LoadedModel, ids: Sequence[int], at: int, value: float) -> Excerpt:
    parts = (ids[max(at - _BEFORE, 0) : at], ids[at : at + 1], ids[at + 1 : at + 1 + _AFTER])
    before, token, after = (str(model.tokenizer.decode(list(part))) for part in parts)
    return Excerpt(before, token, after, value)
