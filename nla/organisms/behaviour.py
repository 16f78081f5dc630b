"""What an implanted state does besides: the model's own replies under either context, its perplexity, and its drift from the base."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from nla.kernels.padding import right_padded
from nla.models.chat_template import encode_content
from nla.models.loaded import LoadedModel, exclusive
from nla.organisms.examples import sampled
from nla.organisms.groups import Case, read_cases
from nla.support.rows import read_file

PASSAGES = Path(__file__).parent / "passages.jsonl"
"""Ordinary prose written for this project."""
_CLOSING_TOKENS = 24
"""Tokens beyond a reply's usual length, so that a habit at its end has room."""
_PASSAGES = 40
_BATCH = 8


@dataclass(frozen=True)
class OwnReply:
    """A reply that the model itself wrote in a case's context."""

    case: Case
    text: str


def own_replies(model: LoadedModel, cases: Sequence[Case], tokens: int) -> list[OwnReply]:
    """Let the model answer each case's request in its context (seeded by the case)."""
    asked = [(list(case.ids[: case.reply_from]), ("own reply", *case.key, case.cued)) for case in cases]
    return [OwnReply(case, text) for case, text in zip(cases, sampled(model, asked, tokens + _CLOSING_TOKENS), strict=True)]


def perplexity_change(model: LoadedModel) -> float:
    """Return by which share the perplexity on ordinary prose differs from the base model's (0.05: 5 % higher)."""
    texts = [str(row["text"]) for row in read_file(PASSAGES)[:_PASSAGES]]
    ids = [encode_content(model.tokenizer, text) for text in texts]
    return math.exp(_nats_per_token(model, ids) - _nats_per_token(model.base, ids)) - 1


@exclusive
@torch.inference_mode()
def _nats_per_token(model: LoadedModel, rows: Sequence[Sequence[int]]) -> float:
    total, count = 0.0, 0
    for start in range(0, len(rows), _BATCH):
        batch = rows[start : start + _BATCH]
        ids = right_padded(batch)
        logits = model.network(input_ids=ids.to(model.device), use_cache=False).logits.float().cpu()
        for i, row in enumerate(batch):
            total += float(nn.functional.cross_entropy(logits[i, : len(row) - 1], ids[i, 1 : len(row)], reduction="sum"))
            count += len(row) - 1
    return total / count


def drift(model: LoadedModel, layer: int, cases: Sequence[Case]) -> float:
    """Return the mean cosine between the model's vectors and the base model's, at the same tokens of the same conversations."""
    cosines = []
    for cued in (True, False):
        chosen = [case for case in cases if case.cued is cued]
        before = read_cases(model.base, layer, [(case.row, case.pair) for case in chosen], (cued,))
        cosines += [nn.functional.cosine_similarity(a.vectors, b.vectors, dim=-1) for a, b in zip(chosen, before, strict=True)]
    return float(torch.cat(cosines).mean())
