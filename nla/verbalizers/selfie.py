"""Untrained baseline: the vector stands in for a word's embedding in a prompt, and the model says what the word means.

After "SelfIE: Self-Interpretation of Large Language Model Embeddings" (Chen et al. 2024, https://arxiv.org/abs/2403.10949).
We differ: one placeholder instead of several, and the vector enters once, at the embedding layer, rescaled to the mean
norm of the embedding rows, which is how the trained AV takes it too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nla.engine.decoder import Decoder, Request
from nla.engine.sampling import SamplingParams
from nla.models.chat_template import encode, render
from nla.models.loaded import LoadedModel, exclusive
from nla.verbalizers.base import UNUSABLE, Explanation, usable_rows

_MARK = "\u241f"
_QUESTION = f'Somebody was reading a text and thought of "{_MARK}". In one sentence, what kind of text is it and what is it about?'
_OPENING = "The text is"
_MAX_TOKENS = 32


@dataclass(frozen=True)
class SelfIE:
    """Self-interpretation of vectors by greedy decoding; draws nothing at random."""

    model: LoadedModel
    before: tuple[int, ...]
    after: tuple[int, ...]
    scale: float
    layer: int
    name: str = "selfie"
    pair: None = None

    def verbalize(self, vectors: Float[Tensor, "n d_model"], keys: Sequence[tuple[object, ...]]) -> list[Explanation]:
        """See `Verbalizer`; the text is the model's answer, cut after 32 tokens (that is its form, not a failure)."""
        usable = usable_rows(vectors).tolist()
        units = torch.nan_to_num(torch.nn.functional.normalize(vectors, dim=-1))
        placeholder = self.before[-1]  # never seen: its embedding is replaced
        requests = [
            Request(
                prompt_ids=[*self.before, placeholder, *self.after],
                max_tokens=_MAX_TOKENS,
                sampling=SamplingParams(temperature=0),
                injections=((len(self.before), unit * self.scale),),
                stop_ids=self.model.stop_ids,
            )
            for unit, good in zip(units, usable, strict=True)
            if good
        ]
        done = iter(Decoder(self.model, max_rows=64).run(requests))
        texts = (str(self.model.tokenizer.decode(c.ids, skip_special_tokens=True)) for c in done)
        return [Explanation(f"{_OPENING}{next(texts)}") if good else UNUSABLE for good in usable]


@exclusive
@torch.no_grad()
def build(model: LoadedModel, layer: int | None, nla: str | None) -> SelfIE:
    """Self-interpretation for vectors of any layer; it is no trained pair, so `nla` means nothing to it."""
    prompt = render(model.tokenizer, [{"role": "user", "content": _QUESTION}], [], add_generation_prompt=True) + _OPENING
    before, after = (tuple(encode(model.tokenizer, part)) for part in prompt.split(_MARK))
    common = torch.arange(min(model.text_config.vocab_size, 4_096), device=model.device)
    scale = float(model.embedding(common).float().norm(dim=-1).mean())
    return SelfIE(model, before, after, scale, model.check_layer(layer))
