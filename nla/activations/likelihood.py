"""Log-probabilities that a model assigns to the response tokens of a transcript, and vectors from the same forward passes."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from nla.activations.capture import check_length, readings
from nla.activations.hooks import collecting
from nla.models.loaded import LoadedModel, exclusive
from nla.transcripts.tokens import TokenRef, Transcript


@exclusive
@torch.inference_mode()
def response_logprobs(model: LoadedModel, transcript: Transcript, tokens: Sequence[TokenRef]) -> list[float]:
    """Return the log-probability (nats, temperature 1) of each given token, conditional on all tokens before it.

    Raises:
        ConfigError: a pass is longer than the context window.
    """
    logprobs: dict[TokenRef, float] = {}
    for part in _passes(model, transcript, tokens):
        logprobs.update(part)
    return [logprobs[token] for token in tokens]


@exclusive
@torch.no_grad()
def logprobs_and_vectors(
    model: LoadedModel, transcript: Transcript, tokens: Sequence[TokenRef], layer: int
) -> tuple[list[float], Float[Tensor, "k d_model"]]:
    """Return the `response_logprobs` of the given tokens, and the residual stream after block `layer` at each (float32, on the CPU).

    Raises:
        ConfigError: the model has no such block, or a pass is longer than the context window.
    """
    logprobs: dict[TokenRef, float] = {}
    vectors: dict[TokenRef, Tensor] = {}
    with collecting([model.blocks[model.check_layer(layer)]]) as streams:
        for part in _passes(model, transcript, tokens):
            stream = streams.pop()[0].float().cpu()
            logprobs.update(part)
            vectors.update({token: stream[token.position] for token in part})
    stacked = torch.stack([vectors[token] for token in tokens]) if tokens else torch.empty(0, model.d_model)
    return [logprobs[token] for token in tokens], stacked


def _passes(model: LoadedModel, transcript: Transcript, tokens: Sequence[TokenRef]) -> Iterator[dict[TokenRef, float]]:
    """Run the passes of a transcript that hold given tokens, and yield the tokens' log-probabilities after each."""
    for ids, wanted in readings(model, transcript, tokens):
        check_length(model, len(ids))
        before = torch.tensor([token.position - 1 for token in wanted]).unique()
        row_of = {int(position): row for row, position in enumerate(before)}
        out = model.network(input_ids=torch.tensor([ids], device=model.device), use_cache=False, logits_to_keep=before.to(model.device))
        rows = out.logits[0].float().log_softmax(dim=-1).cpu()
        yield {token: float(rows[row_of[token.position - 1], token.token_id]) for token in wanted}
