"""What transformers itself computes, without any of this project's engines: the truth that engines are compared with.

The network that is in memory is called as transformers calls it, one sequence at a time and without a cache of our own.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from nla.models.loaded import LoadedModel
from nla.pair.contract import av_prompt_ids, scaled
from nla.verbalizers.av import OPEN, ActivationVerbalizer
from nla.verbalizers.no_repeats import RepeatGuard, Spellings


def hidden_states(
    model: LoadedModel, rows: Sequence[Sequence[int]], layers: Sequence[int], added: tuple[int, Float[Tensor, " d_model"]] | None = None
) -> dict[int, list[Float[Tensor, "pos d_model"]]]:
    """Return transformers' `hidden_states[layer + 1]` of each sequence, by layer (float32, on the CPU). Each sequence runs once.

    Args:
        model: the model.
        rows: token ids.
        layers: blocks; not the last one, whose entry transformers returns after the final norm.
        added: a block and a vector that is added to its output at every token.
    """
    hook = None if added is None else model.blocks[added[0]].register_forward_hook(_adding(added[1]))
    try:
        by_row = model.run(lambda: [_run(model, row, layers) for row in rows])
    finally:
        if hook is not None:
            hook.remove()
    return {layer: [streams[layer] for streams in by_row] for layer in layers}


@torch.no_grad()
def _run(model: LoadedModel, row: Sequence[int], layers: Sequence[int]) -> dict[int, Float[Tensor, "pos d_model"]]:
    ids = torch.tensor([list(row)], device=model.device)
    states = model.network(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
    return {layer: states[layer + 1][0].float().cpu() for layer in layers}


def _adding(vector: Float[Tensor, " d_model"]) -> Any:
    def hook(_module: object, _inputs: object, output: Any) -> Any:
        first, *rest = output if isinstance(output, tuple) else (output,)
        changed = first + vector.to(first)
        return (changed, *rest) if isinstance(output, tuple) else changed

    return hook


class _Rule(LogitsProcessor):
    """A sidecar's `lines_without_repeats`, for transformers' own decoding."""

    def __init__(self, guard: RepeatGuard) -> None:
        self._guard = guard

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        banned = sorted(self._guard(input_ids[0].tolist()))
        scores[0, banned] = -torch.inf
        return scores


def greedy_replies(av: ActivationVerbalizer, vectors: Float[Tensor, "n d_model"]) -> list[list[int]]:
    """Return the token ids of an AV's greedy reply to each vector, by transformers' `generate`."""
    return av.model.run(lambda: [_reply(av, vector) for vector in vectors])


@torch.no_grad()
def _reply(av: ActivationVerbalizer, vector: Float[Tensor, " d_model"]) -> list[int]:
    model, sidecar = av.model, av.sidecar
    ids = av_prompt_ids(model.tokenizer, sidecar)
    assert sidecar.marker is not None
    [position] = sidecar.marker.positions(ids)
    embeds = model.embedding(torch.tensor([ids], device=model.device)).clone()
    embeds[0, position] = scaled(vector[None].to(model.device), sidecar.injection_scale)[0].to(embeds)
    lines = sidecar.lines_without_repeats
    rules = LogitsProcessorList([_Rule(RepeatGuard(Spellings(model.tokenizer), OPEN, lines))] if lines else [])
    return generated(model, len(ids), sidecar.max_tokens, inputs_embeds=embeds, logits_processor=rules)


def generated(model: LoadedModel, n_prompt: int, most: int, **inputs: Any) -> list[int]:
    """Return what transformers' greedy `generate` returns for one row: the reply for `inputs_embeds`, prompt and reply for `input_ids`.

    Args:
        model: the model. The caller runs this through `LoadedModel.run`, without gradient.
        n_prompt: number of tokens of the prompt.
        most: largest number of tokens of the reply.
        inputs: further arguments of `generate`.
    """
    generate: Any = model.network.generate
    mask = torch.ones(1, n_prompt, device=model.device)
    stops = sorted(model.stop_ids)
    out = generate(attention_mask=mask, do_sample=False, max_new_tokens=most, eos_token_id=stops, pad_token_id=0, **inputs)
    ids: list[int] = out[0].tolist()
    return ids
