"""An oracle in memory: the AV's prompt with a question behind the marker, and the log-odds of Yes against No.

Arms by what stands at the marker: the vector; nothing (the marker's own embedding); or the text that the vector was read from. Source:
the NLA paper's oracle section, and arXiv 2512.15674. Difference: only Yes and No are compared, so that every answer has log-odds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nla.activations.continuation import hidden_after
from nla.kernels.padding import FEW_SHAPES, right_padded
from nla.models.chat_template import encode, encode_content, render
from nla.models.loaded import LoadedModel
from nla.pair.contract import Sidecar, require_replacing, scaled
from nla.support.errors import ConfigError

TEXT_TOKENS = 48
"""Last tokens of a text that the text arm is given."""
_BATCH = 32
_MARK = "\u241f"


@dataclass(frozen=True)
class Asked:
    """A question about a vector, or about the text that it was read from."""

    question: str
    vector: Float[Tensor, " d_model"] | None = None
    """Raw vector; None leaves the marker as it is."""
    text: str | None = None
    """Stands in place of the marker, where it is given."""


class Oracle:
    """An AV's network with a prompt for questions.

    Args:
        role: the base model with an adapter.
        sidecar: the contract of the AV that it was made from.

    Raises:
        ContractError: the AV's vectors do not replace an embedding.
        ConfigError: the tokenizer writes Yes and No with the same first token.
    """

    def __init__(self, role: LoadedModel, sidecar: Sidecar) -> None:
        require_replacing(sidecar, "the oracle")
        assert sidecar.marker is not None
        self.role, self.sidecar = role, sidecar
        self.marker = sidecar.marker.token_id
        self.beginning = encode(role.tokenizer, self._split("")[0])
        self.answer_ids = [encode_content(role.tokenizer, word)[0] for word in ("Yes", "No")]
        if self.answer_ids[0] == self.answer_ids[1]:
            raise ConfigError(f"{role.source.name} writes Yes and No with the same first token, so their odds cannot be compared.")

    def log_odds(self, asked: Sequence[Asked]) -> Float[Tensor, " n"]:
        """Return the log-odds of Yes against No for each question (no gradient)."""
        with torch.no_grad():
            parts = [self.logits(asked[start : start + _BATCH]) for start in range(0, len(asked), _BATCH)]
        logits = torch.cat(parts)
        odds: Tensor = (logits[:, 0] - logits[:, 1]).float().cpu()
        return odds

    def logits(self, asked: Sequence[Asked]) -> Float[Tensor, "n 2"]:
        """Return the logits of Yes and No at the first token of the answer, with gradient where the adapter is trained.

        The prompt before the marker is the same for all questions, so it runs as one row whose keys and values they share.
        """
        rows = [self.ids_from_marker(one) for one in asked]
        device = self.role.device
        ids = right_padded(rows, FEW_SHAPES).to(device)
        embeds = self.role.embedding(ids)
        given = [(i, one.vector) for i, one in enumerate(asked) if one.vector is not None]
        if given:
            vectors = scaled(torch.stack([vector for _, vector in given]).to(device), self.sidecar.injection_scale)
            places = torch.tensor([i for i, _ in given], device=device)
            embeds = embeds.index_put((places, torch.zeros_like(places)), vectors.to(embeds))
        hidden = hidden_after(self.role, self.beginning, embeds)
        last = torch.tensor([len(row) - 1 for row in rows], device=device)
        weight = self.role.unembedding.weight
        assert isinstance(weight, Tensor)
        logits: Tensor = hidden[torch.arange(len(rows), device=device), last] @ weight[self.answer_ids].T.to(hidden.dtype)
        return logits.float()

    def ids_from_marker(self, asked: Asked) -> list[int]:
        """Return the token ids of the prompt from the marker on, or from the text that stands in its place."""
        _, after = self._split(asked.question)
        middle = [self.marker] if asked.text is None else encode_content(self.role.tokenizer, asked.text)[-TEXT_TOKENS:]
        return [*middle, *_without_bos(self.role, after)]

    def _split(self, question: str) -> tuple[str, str]:
        """Return the prompt before and behind the marker, as text."""
        template = self.sidecar.template.replace("{injection_char}", _MARK)
        content = f"{template}\n{question} Answer Yes or No."
        prompt = render(self.role.tokenizer, [{"role": "user", "content": content}], [], add_generation_prompt=True)
        before, after = prompt.split(_MARK)
        return before, after


def _without_bos(role: LoadedModel, text: str) -> list[int]:
    """Return the token ids of the template's own text that stands behind the marker, control tokens included, without a BOS."""
    ids = encode(role.tokenizer, text)
    bos = role.tokenizer.bos_token_id
    return ids[1:] if ids[:1] == [bos] and not text.startswith(str(role.tokenizer.bos_token)) else ids
