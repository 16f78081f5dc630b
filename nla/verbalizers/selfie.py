"""Untrained baseline: the vector replaces a word's embedding in a prompt, and the model describes what the word means.

After "SelfIE: Self-Interpretation of Large Language Model Embeddings" (Chen et al. 2024, https://arxiv.org/abs/2403.10949).
Differences: there is one placeholder instead of several, and the vector enters once, at the embedding layer, scaled to the mean
norm of the embedding rows. The trained AV takes vectors in the same way.
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
    """Self-interpretation of vectors by greedy decoding; nothing in it is random."""

    model: LoadedModel
    before: tuple[int, ...]
    after: tuple[int, ...]
    scale: float
    layer: int
    name: str = "selfie"
    pair: None = None

    def verbalize(self, vectors: Float[Tensor, "n d_model"], keys: Sequence[tuple[object, ...]]) -> list[Explanation]:
        """See `Verbalizer`; the text is the model's answer, always cut after 32 tokens, which is not a failure."""
        usable = usable_rows(vectors).tolist()
        units = torch.nan_to_num(torch.nn.functional.normalize(vectors, dim=-1))
        placeholder = self.before[-1]  # any token would do: its embedding is replaced
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
        completions = Decoder(self.model, max_rows=64).run(requests)
        texts = (str(self.model.tokenizer.decode(completion.ids, skip_special_tokens=True)) for completion in completions)
        return [Explanation(f"{_OPENING}{next(texts)}") if good else UNUSABLE for good in usable]


@exclusive
@torch.no_grad()
def build(model: LoadedModel, layer: int | None, nla: str | None) -> SelfIE:
    """Make the self-interpretation for vectors of any layer; `nla` is ignored, because no trained pair is used."""
    prompt = render(model.tokenizer, [{"role": "user", "content": _QUESTION}], [], add_generation_prompt=True) + _OPENING
    before, after = (tuple(encode(model.tokenizer, part)) for part in prompt.split(_MARK))
    common = torch.arange(min(model.text_config.vocab_size, 4_096), device=model.device)
    scale = float(model.embedding(common).float().norm(dim=-1).mean())
    return SelfIE(model, before, after, scale, model.check_layer(layer))
