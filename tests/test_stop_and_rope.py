"""Stop ids from three sources, and rotary frequencies that depend on a row's own length."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from nla.activations.capture import residual_stream
from nla.engine.decoder import Decoder, Request
from nla.engine.sampling import SamplingParams
from nla.models.loaded import LoadedModel, load_model
from nla.models.stop_tokens import stop_ids, template_end_ids
from tests import conftest
from tests.conftest import byte_tokenizer, write_tiny_model

Folder = Callable[[str], Path]
END = 257
"""`<|im_end|>` in the tests' tokenizer: its end-of-sequence token, and what the template writes after a reply."""


@pytest.mark.parametrize(("named", "expected"), [([0], {0, END}), (0, {0, END}), ([0, 7], {0, 7, END}), (None, {END})])
def test_stop_ids_are_those_of_all_sources(named: Any, expected: set[int], tiny_folder: Folder, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folder("llama"), tmp_path / "model"))
    generation = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(generation | {"eos_token_id": named}))
    stop_ids = load_model(str(folder), dtype="float32", device="cpu").stop_ids
    assert expected <= stop_ids <= expected | {256, 257, 258}


@pytest.mark.parametrize(
    ("ending", "ends"),
    [("<|im_end|>\n", True), (" <|im_end|>", True), ("\n", False), (" bye<|im_end|>", False), ("", False)],
)
def test_the_template_names_the_token_after_a_reply(ending: str, ends: bool) -> None:
    template = (
        "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}{% if m['role'] == 'assistant' %}" + ending + "{% endif %}{% endfor %}"
    )
    tokenizer = byte_tokenizer(template.replace("\n", "{{ '\\n' }}"))
    expected = frozenset({tokenizer.convert_tokens_to_ids("<|im_end|>")} if ends else ())
    assert template_end_ids(tokenizer) == expected


def longrope(family: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> LoadedModel:
    """A tiny model that changes its frequencies after 32 tokens."""
    factors = {"long_factor": [1.0, 2.0, 3.0, 4.0], "short_factor": [1.0] * 4}
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 32, **factors}
    kind = {"llama": transformers.LlamaConfig, "phi3": transformers.Phi3Config}[family]
    extra = {"original_max_position_embeddings": 32, "rope_parameters": rope}
    monkeypatch.setitem(conftest.CONFIGS, family, lambda: kind(**conftest._GROUPED, **extra))
    write_tiny_model(folder, family)
    return load_model(str(folder), dtype="float32", device="cpu")


@pytest.mark.parametrize("family", ["llama", "phi3"])
def test_an_answer_does_not_depend_on_a_long_neighbour(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = longrope(family, tmp_path, monkeypatch)
    reference = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, attn_implementation="eager").eval()
    common = [256, *b"a beginning in common"]
    prompts = [[256, 65], [*common, 66], [*common, *b" of a prompt that is longer than the switch"], [*common, 67], [70] * 31, [71] * 90]

    def ask(prompt: list[int]) -> Request:
        return Request(prompt, 20, SamplingParams(temperature=0))

    alone = [Decoder(model).run([ask(prompt)])[0].ids for prompt in prompts]
    decoder = Decoder(model)
    assert [done.ids for done in decoder.run([ask(prompt) for prompt in prompts])] == alone
    assert [done.ids for done in decoder.run([ask(prompt) for prompt in reversed(prompts)])] == alone[::-1]  # kept prefixes are used now
    for prompt, ids in zip(prompts, alone, strict=True):
        given = torch.tensor([prompt])
        out = reference.generate(given, attention_mask=torch.ones_like(given), max_new_tokens=20, do_sample=False, eos_token_id=-1)
        assert ids == out[0, len(prompt) :].tolist()
        with torch.no_grad():
            states = reference(given, output_hidden_states=True).hidden_states[2][0]
        torch.testing.assert_close(residual_stream(model, prompt, 1), states, rtol=1e-4, atol=1e-4)


def test_a_stop_id_in_the_config_of_images_and_text_counts_where_no_generation_config_names_one() -> None:
    class Nothing:
        eos_token_id = None

    class Both:
        eos_token_id = 7

        @staticmethod
        def get_text_config() -> Any:
            inner = Nothing()
            inner.eos_token_id = [9]  # type: ignore[assignment]
            return inner

    assert stop_ids(byte_tokenizer(), Nothing(), Both()) == {7, 9, END}
