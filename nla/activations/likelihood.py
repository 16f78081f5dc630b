"""Log-probabilities that a model assigns to the response tokens of a transcript."""

from collections.abc import Sequence

import torch

from nla.activations.capture import check_length, readings
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
    for ids, wanted in readings(model, transcript, tokens):
        check_length(model, len(ids))
        before = torch.tensor([token.position - 1 for token in wanted]).unique()
        row_of = {int(position): row for row, position in enumerate(before)}
        out = model.network(input_ids=torch.tensor([ids], device=model.device), use_cache=False, logits_to_keep=before.to(model.device))
        rows = out.logits[0].float().log_softmax(dim=-1).cpu()
        logprobs.update({token: float(rows[row_of[token.position - 1], token.token_id]) for token in wanted})
    return [logprobs[token] for token in tokens]
