"""How likely a model finds the response tokens of a transcript."""

from collections.abc import Sequence

import torch

from nla.models.loaded import LoadedModel, exclusive
from nla.support.errors import ConfigError
from nla.transcripts.tokens import TokenRef, Transcript


@exclusive
@torch.inference_mode()
def response_logprobs(model: LoadedModel, transcript: Transcript, tokens: Sequence[TokenRef]) -> list[float]:
    """Log-probability (nats, temperature 1) of each of the given tokens, given all tokens before it.

    Raises:
        ConfigError: a pass longer than the context window.
    """
    found: dict[TokenRef, float] = {}
    for index, one in enumerate(transcript.passes):
        wanted = [token for token in tokens if token.pass_index == index]
        if not wanted:
            continue
        last = max(token.position for token in wanted)
        if last > model.max_positions:
            raise ConfigError(f"a sequence of {last} tokens cannot be read; {model.source.name} takes {model.max_positions}.")
        before = torch.tensor([token.position - 1 for token in wanted])
        ids = torch.tensor([one.ids[:last]], device=model.device)
        keep = (before.unique()).to(model.device)
        logits = model.network(input_ids=ids, use_cache=False, logits_to_keep=keep).logits[0].float().log_softmax(dim=-1).cpu()
        row_of = {int(position): row for row, position in enumerate(before.unique())}
        found.update({token: float(logits[row_of[token.position - 1], token.token_id]) for token in wanted})
    return [found[token] for token in tokens]
