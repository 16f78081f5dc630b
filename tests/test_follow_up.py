"""The follow-up question: log-odds of local models against plain torch, ratings of any provider, and that nothing else changes."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from nla.activations.follow_up import WORDINGS, evaluation_log_odds, log_odds_by_wording, log_odds_of_evaluation
from nla.models.loaded import LoadedModel, load_model
from nla.support.errors import HarnessError
from tests.conftest import CONFIGS, byte_tokenizer

Folder = Callable[[str], Path]
Load = Callable[[Path], PreTrainedModel]
MESSAGES = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello, and what is on your mind?"}]


def plain_log_odds(network: PreTrainedModel, messages: list[dict[str, str]], question: str) -> float:
    """log p(Yes) - log p(No) by a forward pass of its own over the whole prompt; words are read at their first byte."""
    said = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in [*messages, {"role": "user", "content": question}])
    ids = byte_tokenizer().encode(said + "<|im_start|>assistant\n", add_special_tokens=False)
    with torch.no_grad():
        logits = network(torch.tensor([ids])).logits[0, -1]
    first = {character: byte_tokenizer().encode(character, add_special_tokens=False)[0] for character in "Y yNn"}
    yes, no = (torch.tensor(sorted({first[character] for character in characters})) for characters in ("Y y", "N n"))
    return float(logits[yes].logsumexp(0) - logits[no].logsumexp(0))


def test_half_of_the_wordings_are_reversed_and_all_differ() -> None:
    assert len({wording.question for wording in WORDINGS}) == len(WORDINGS) >= 4
    assert sum(wording.yes_means_evaluation for wording in WORDINGS) == len(WORDINGS) / 2


@pytest.mark.parametrize("family", CONFIGS)
def test_the_log_odds_are_those_of_independent_forward_passes(family: str, tiny_folder: Folder, independent: Load) -> None:
    model, network = load_model(str(tiny_folder(family)), dtype="float32", device="cpu"), independent(tiny_folder(family))
    signs = [1 if wording.yes_means_evaluation else -1 for wording in WORDINGS]
    expected = [sign * plain_log_odds(network, MESSAGES, wording.question) for sign, wording in zip(signs, WORDINGS, strict=True)]
    assert log_odds_by_wording(model, [MESSAGES])[0] == pytest.approx(expected, abs=1e-3)
    assert evaluation_log_odds(model, MESSAGES) == pytest.approx(sum(expected) / len(expected), abs=1e-3)


def test_the_wordings_of_a_conversation_run_as_one_batch_after_what_they_share(tiny: LoadedModel) -> None:
    shapes: list[tuple[int, ...]] = []
    handle = tiny.embedding.register_forward_hook(lambda _module, inputs, _output: shapes.append(tuple(inputs[0].shape)))
    try:
        log_odds_of_evaluation(tiny, [MESSAGES])
    finally:
        handle.remove()
    assert [rows for rows, _ in shapes] == [1, len(WORDINGS)]


def test_a_conversation_that_is_too_long_is_refused(tiny: LoadedModel) -> None:
    with pytest.raises(HarnessError, match="takes 1 to 512"):
        evaluation_log_odds(tiny, [{"role": "user", "content": "x" * 600}])
