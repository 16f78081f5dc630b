"""Known groups: the identical reply under both sides of paired contexts, read at the same tokens.

A reader of the reply alone cannot tell the sides apart, so what a measure finds was carried from the context into the reply's vectors.
Replies are the base model's own and hold no habit: every token is read before a habit could show.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from nla.activations.capture import streams
from nla.models.chat_template import encode_content, prompt_ids
from nla.models.loaded import LoadedModel
from nla.organisms.contexts import ContextPair
from nla.organisms.examples import AnsweredPrompt
from nla.support.seeds import seeded_generator


@dataclass(frozen=True, eq=False)
class Case:
    """One reply under one side of a pair of contexts."""

    row: AnsweredPrompt
    pair: ContextPair
    cued: bool
    ids: tuple[int, ...]
    """Prompt and reply."""
    reply_from: int
    """Position of the reply's first token."""
    vectors: Float[Tensor, "k d_model"] = field(repr=False)
    """Raw residual stream after block K at the reply's tokens (float32, on the CPU)."""

    @property
    def messages(self) -> list[dict[str, str]]:
        """The conversation with its reply."""
        return [*self.pair.messages(self.row.prompt, cued=self.cued), {"role": "assistant", "content": self.row.reply}]

    @property
    def key(self) -> tuple[str, str, str]:
        """The same for both sides, so that random draws are the same too."""
        return (self.row.identity, self.pair.family, self.pair.cue)

    def sampled(self, tokens: int) -> list[int]:
        """Return seeded positions of the reply's tokens, the same on both sides of a pair and for every reader; all if there are fewer."""
        return sorted(int(i) for i in seeded_generator("known groups tokens", *self.key).permutation(len(self.vectors))[:tokens])


@dataclass(frozen=True)
class KnownGroups:
    """A model, and cases to fit supervised measures on and to test all measures with. Their prompts and wordings differ."""

    model: LoadedModel
    layer: int
    fit: tuple[Case, ...]
    test: tuple[Case, ...]
    """Cued ones first; the second half are their partners, in the same order."""
    own_replies: Mapping[Case, str] = field(default_factory=dict)
    """What the model itself writes in a tested case's context."""
    tokens: int = 2
    """Tokens per case that are verbalized, which takes the longest. Other measures read every token of the reply."""
    pair: str | None = None
    """The pair that explains the vectors: alias, folder or hub id. None takes the one that is known for the base model."""
    sae: Path | None = None
    """Folder of a sparse autoencoder; None takes the one that ships for the base model, if there is one."""
    oracle: Path | None = None
    """Folder of a question-answering oracle; None where there is none."""


def assigned(rows: Sequence[AnsweredPrompt], pairs: Sequence[ContextPair], key: str) -> list[tuple[AnsweredPrompt, ContextPair]]:
    """Return each prompt with one pair: families in turn, and within a family a seeded order of its pairs."""
    families = sorted({pair.family for pair in pairs})
    orders = {}
    for family in families:
        members = [pair for pair in pairs if pair.family == family]
        orders[family] = [members[i] for i in seeded_generator("known groups", key, family).permutation(len(members))]
    out = []
    for number, row in enumerate(rows):
        turn, place = divmod(number, len(families))
        order = orders[families[place]]
        out.append((row, order[turn % len(order)]))
    return out


def read_cases(
    model: LoadedModel, layer: int, chosen: Sequence[tuple[AnsweredPrompt, ContextPair]], sides: Sequence[bool] = (True, False)
) -> list[Case]:
    """Return the cases of prompts and pairs with their vectors: all of the first side, then all of the second.

    Raises:
        ConfigError: the model has no such layer, or a conversation is longer than the context window.
    """
    cases = [_case(model, row, pair, cued) for cued in sides for row, pair in chosen]
    for i, stream in streams(model, [case.ids for case in cases], layer):
        cases[i] = replace(cases[i], vectors=stream[cases[i].reply_from :].clone())
    return cases


def _case(model: LoadedModel, row: AnsweredPrompt, pair: ContextPair, cued: bool) -> Case:
    prompt = prompt_ids(model.tokenizer, pair.messages(row.prompt, cued=cued))
    ids = (*prompt, *encode_content(model.tokenizer, row.reply))
    return Case(row, pair, cued, ids, len(prompt), torch.empty(0, model.d_model))
