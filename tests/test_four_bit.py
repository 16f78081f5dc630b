"""Weights in 4 bits (`-M dtype=4bit`): the model computes with the dequantized weights, or the package that it needs is named."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from nla.activations.capture import residual_stream
from nla.engine.decoder import Decoder, Request
from nla.engine.sampling import SamplingParams
from nla.models.loaded import load_model
from nla.models.precision import resolve_precision
from nla.support.errors import ConfigError

PROMPT = [256, *b"Hello there, how are you?"]


def test_without_bitsandbytes_one_message_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"'4bit' needs the package bitsandbytes.*pip install bitsandbytes"):
        resolve_precision("4bit", torch.device("cpu"))


def test_a_model_in_four_bits_computes_with_the_dequantized_weights(tiny_folder: Callable[[str], Path]) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    model = load_model(str(tiny_folder("llama")), dtype="4bit", device="cpu")
    assert model.describe()["dtype"] == "4bit"
    dtype = model.precision.dtype
    reference = AutoModelForCausalLM.from_pretrained(tiny_folder("llama"), dtype=dtype, attn_implementation="eager").eval()
    quantized = [(name, layer) for name, layer in model.network.named_modules() if isinstance(layer, bitsandbytes.nn.Linear4bit)]
    assert len(quantized) == 7 * model.n_layers
    for name, layer in quantized:
        weight = bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        reference.get_submodule(name).weight.data.copy_(weight)
    ids = torch.tensor([PROMPT])
    with torch.no_grad():
        expected = reference(ids, output_hidden_states=True)
        logits = model.network(input_ids=ids, use_cache=False).logits
    tolerance = 1e-3 if dtype == torch.float32 else 0.2
    torch.testing.assert_close(logits, expected.logits, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(residual_stream(model, PROMPT, 1), expected.hidden_states[2][0].float(), rtol=tolerance, atol=tolerance)
    if dtype == torch.float32:
        out = reference.generate(ids, max_new_tokens=12, do_sample=False, eos_token_id=-1)
        assert Decoder(model).run([Request(PROMPT, 12, SamplingParams(temperature=0))])[0].ids == out[0, len(PROMPT) :].tolist()
