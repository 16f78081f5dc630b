"""Capture against transformers' own `output_hidden_states`."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from inspect_ai.model import ChatMessageAssistant, ChatMessageUser
from transformers import PreTrainedModel

from nla.activations.capture import capture, residual_stream
from nla.models.embedded import embedded_dir
from nla.models.loaded import LoadedModel, load_model
from nla.support.errors import ConfigError
from nla.transcripts.tokens import sample_tokens
from nla.transcripts.transcript import build_transcript
from tests.conftest import CONFIGS

Folder = Callable[[str], Path]
Load = Callable[[Path], PreTrainedModel]
IDS = [256, *(b"The residual stream after block K, longer than a sliding window." * 2)]


@pytest.mark.parametrize("family", CONFIGS)
def test_vectors_equal_hidden_states_one_past_the_layer(family: str, tiny_folder: Folder, independent: Load) -> None:
    model = load_model(str(tiny_folder(family)), dtype="float32", device="cpu")
    with torch.no_grad():
        expected = independent(tiny_folder(family))(torch.tensor([IDS]), output_hidden_states=True).hidden_states
    for layer in range(model.n_layers - 1):
        torch.testing.assert_close(residual_stream(model, IDS, layer), expected[layer + 1][0], rtol=1e-4, atol=1e-4)
    last = residual_stream(model, IDS, model.n_layers - 1)
    torch.testing.assert_close(model.final_norm(last), expected[-1][0], rtol=1e-4, atol=1e-4)  # the last entry is normed


@pytest.mark.slow
def test_vectors_of_the_embedded_model_equal_hidden_states(smollm2: LoadedModel, independent: Load) -> None:
    ids = smollm2.tokenizer.encode("<|im_start|>user\nWhy is the sky blue?<|im_end|>\n<|im_start|>assistant\nBecause of scattering.")
    with torch.no_grad():
        expected = independent(embedded_dir())(torch.tensor([ids]), output_hidden_states=True).hidden_states[21][0]
    got = residual_stream(smollm2, ids, 20)
    assert ((got - expected).norm(dim=-1) / expected.norm(dim=-1)).max() < 1e-3


def test_capture_reads_the_sampled_positions_of_every_turn(tiny: LoadedModel, tiny_folder: Folder, independent: Load) -> None:
    messages = [
        ChatMessageUser(content="first question"),
        ChatMessageAssistant(content="first answer", source="generate"),
        ChatMessageUser(content="second question"),
        ChatMessageAssistant(content="the second answer", source="generate"),
    ]
    transcript = build_transcript(tiny.tokenizer, messages)
    tokens = sample_tokens(transcript, 12, "id", 1)
    vectors = capture(tiny, transcript, tokens, 1)
    whole = tiny.tokenizer.apply_chat_template([{"role": m.role, "content": m.text} for m in messages], tokenize=False)
    ids = tiny.tokenizer.encode(whole, add_special_tokens=False)
    with torch.no_grad():
        expected = independent(tiny_folder("llama"))(torch.tensor([ids]), output_hidden_states=True).hidden_states[2][0]
    assert {t.message for t in tokens} == {1, 3}
    torch.testing.assert_close(vectors, expected[[t.position for t in tokens]], rtol=1e-4, atol=1e-4)
    assert vectors.dtype is torch.float32


def test_no_tokens_give_no_vectors(tiny: LoadedModel) -> None:
    transcript = build_transcript(tiny.tokenizer, [ChatMessageUser(content="hello")])
    assert capture(tiny, transcript, [], 1).shape == (0, 32)


def test_a_failing_pass_leaves_no_hook_behind(tiny: LoadedModel) -> None:
    with pytest.raises(IndexError):
        residual_stream(tiny, [9_999], 1)
    assert not tiny.blocks[1]._forward_hooks


@pytest.mark.parametrize(
    ("layer", "ids", "said"), [(3, [1], "blocks 0 to 2"), (-1, [1], "out of range"), (0, [], "0 tokens"), (0, [1] * 513, "513 tokens")]
)
def test_what_cannot_be_read_is_refused(tiny: LoadedModel, layer: int, ids: list[int], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        residual_stream(tiny, ids, layer)
