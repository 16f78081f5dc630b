"""An AV whose sidecar forbids repeats lists no word and no candidate twice in those lines, and is untouched elsewhere."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from transformers import PreTrainedTokenizerBase

from nla.engine.decoder import Decoder, Request
from nla.engine.sampling import SamplingParams
from nla.models.loaded import LoadedModel, load_model
from nla.pair.contract import SIDECAR, read_sidecar
from nla.support.errors import ContractError
from nla.training.text_measures import repeated_items
from nla.verbalizers.no_repeats import RepeatGuard, Spellings
from tests.test_sidecar_limits import changed

TAG = "<explanation>"


def written(tokenizer: PreTrainedTokenizerBase, vocabulary: dict[str, float], guarded: bool, seed: int, n: int = 80) -> str:
    """Draw tokens independently of each other with the given weights, without those that a guard forbids."""
    draws = np.random.default_rng(seed)
    ids: list[int] = tokenizer.encode(TAG, add_special_tokens=False)
    n_tag = len(ids)
    guard = RepeatGuard(Spellings(tokenizer), TAG, 2)
    tokens = [tokenizer.encode(text, add_special_tokens=False)[0] for text in vocabulary]
    for _ in range(n):
        banned = guard(ids) if guarded else frozenset()
        weights = np.array([0.0 if token in banned else weight for token, weight in zip(tokens, vocabulary.values(), strict=True)])
        ids.append(int(draws.choice(tokens, p=weights / weights.sum())))
    return str(tokenizer.decode(ids[n_tag:]))


def test_no_word_and_no_candidate_comes_twice(smollm2: LoadedModel) -> None:
    words = {" click": 4.0, " Click": 1.0, " button": 2.0, " code": 2.0, " the": 1.0, ",": 4.0, ".": 1.0, '"': 3.0, ' "': 2.0, "\n": 0.3}
    guarded, free = ([written(smollm2.tokenizer, words, guarded, seed) for seed in range(60)] for guarded in (True, False))
    assert [text for text in map(first_two, guarded) if repeated_items(text)] == []
    assert sum(repeated_items(first_two(text)) > 0 for text in free) > 50


def first_two(text: str) -> str:
    """The first two lines that are not blank, up to a quotation mark that is never closed, and a last line."""
    lines = [line.rpartition('"')[0] if line.count('"') % 2 else line for line in text.split("\n") if line.strip()]
    return "\n".join([*lines[:2], "last"])


def test_what_may_come_again(smollm2: LoadedModel) -> None:
    def banned(text: str) -> set[str]:
        tokens = smollm2.tokenizer.encode(TAG + text, add_special_tokens=False)
        return {smollm2.tokenizer.decode([token]) for token in RepeatGuard(Spellings(smollm2.tokenizer), TAG, 2)(tokens)}

    assert banned("") == set()
    assert banned("Chat with the user. Topic: click,") >= {" chat", "Chat", " user", " topic", " click", "click", " Click"}
    assert " with" in banned("Chat with the user.")
    assert " the" not in banned("Chat with the user.")
    assert banned("Chat. Topic: click") & {" click", "ing"} == {" click"}  # "clicking" is another word
    assert " chat" not in banned("Chat. Topic: click.\nNext:")  # another line
    assert " the" in banned('Chat.\nNext: " the" or "')
    assert "e" in banned('Chat.\nNext: " the" or " a" or " th')
    assert '"' in banned('Chat.\nNext: " the" or " a" or " the')
    assert banned("Chat.\nNext: nothing.\nEnds: click click, click,") == set()  # the quoted text
    assert banned("\n\nChat.\n\nNext.\nEnds: click,") == set()  # blank lines do not count


def test_only_guarded_rows_of_a_batch_change(tiny_folder: Callable[[str], Path]) -> None:
    model = load_model(str(tiny_folder("llama")), dtype="float32", device="cpu")
    prompt = model.tokenizer.encode("What is this?", add_special_tokens=False)
    rows = [Request(prompt, 12, SamplingParams(0.0), seed=("row", i)) for i in range(3)]
    [plain, *_] = Decoder(model).run([replace(row) for row in rows])
    first = plain.ids[0]
    rows[1] = replace(rows[1], banned=lambda ids: [first] if len(ids) < 5 else [])
    before, guarded, after = Decoder(model).run(rows)
    assert before.ids == after.ids == plain.ids
    assert first not in guarded.ids[:5]
    with torch.no_grad():
        logits = model.network(torch.tensor([prompt])).logits[0, -1]
    assert guarded.ids[0] == int(logits.topk(2).indices[1])  # greedy: the likeliest of the others


def test_a_sidecar_with_a_wrong_number_of_lines_is_refused(tmp_path: Path) -> None:
    (tmp_path / SIDECAR).write_text(yaml.safe_dump(changed(("harness", "lines_without_repeats"), -1)))
    with pytest.raises(ContractError, match=r"harness\.lines_without_repeats"):
        read_sidecar(tmp_path)
