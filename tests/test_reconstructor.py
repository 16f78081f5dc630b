"""The AR in the released layout against plain torch, and the reconstruction measures against numpy."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from nla.pair.contract import Sidecar, write_sidecar
from nla.pair.metrics import mse_nrm, reconstruction, retrieval_hits
from nla.pair.reconstructor import load_reconstructor
from nla.support.errors import ContractError, FetchError
from tests.conftest import byte_tokenizer, write_tiny_model

Folder = Callable[[str], Path]
TEMPLATE = "Text: {explanation} End."
TEXTS = ["short", "a rather longer explanation of what the vector holds", "ünïcode {braces}", ""]


def write_ar(folder: Path, family: str = "qwen2", layer: int = 2, **changes: object) -> Path:
    """A tiny AR in the layout of the released ones: K + 1 blocks, head, sidecar."""
    write_tiny_model(folder, family, **changes)
    head = torch.eye(32) + 0.1 * torch.randn(32, 32, generator=torch.Generator().manual_seed(1))
    save_file({"weight": head}, folder / "value_head.safetensors")
    suffix = tuple(byte_tokenizer().encode(" End.", add_special_tokens=False))
    write_sidecar(folder, Sidecar("ar", 32, layer, "", TEMPLATE, None, None, None, suffix_ids=suffix))
    return folder


@pytest.mark.parametrize("family", ["qwen2", "gemma3_text", "llama"])
def test_predictions_equal_plain_torch(family: str, tmp_path: Path) -> None:
    folder = write_ar(tmp_path, family)
    predicted = load_reconstructor(str(folder), dtype="float32", device="cpu").reconstruct(TEXTS, batch=3)
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    captured: list[torch.Tensor] = []
    plain.get_decoder().layers[2].register_forward_hook(lambda _m, _i, out: captured.append(out[0] if isinstance(out, tuple) else out))
    from safetensors.torch import load_file

    head = load_file(folder / "value_head.safetensors")["weight"]
    for text, got in zip(TEXTS, predicted, strict=True):
        captured.clear()
        with torch.no_grad():
            plain(torch.tensor([byte_tokenizer().encode(TEMPLATE.replace("{explanation}", text))]))
        torch.testing.assert_close(got, head @ captured[0][0, -1], rtol=1e-4, atol=1e-4)


def test_the_batch_changes_nothing(tmp_path: Path) -> None:
    ar = load_reconstructor(str(write_ar(tmp_path)), dtype="float32", device="cpu")
    torch.testing.assert_close(ar.reconstruct(TEXTS, batch=1), ar.reconstruct(TEXTS, batch=4), rtol=1e-5, atol=1e-5)
    assert ar.reconstruct([]).shape == (0, 32)
    assert float(ar.score(ar.reconstruct(TEXTS), TEXTS).max()) < 1e-9


def test_a_broken_ar_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_ar(tmp_path)
    save_file({"weight": torch.eye(16)}, folder / "value_head.safetensors")
    with pytest.raises(ContractError, match=r"head is \[16, 16\]"):
        load_reconstructor(str(folder), dtype="float32")
    save_file({"weight": torch.full((32, 32), torch.nan)}, folder / "value_head.safetensors")
    with pytest.raises(ContractError, match="not finite"):
        load_reconstructor(str(folder), dtype="float32")
    (folder / "value_head.safetensors").write_bytes(b"junk")
    with pytest.raises(ContractError, match="cannot be read"):
        load_reconstructor(str(folder), dtype="float32")
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FetchError, match="no folder"):
        load_reconstructor("nobody/no-ar")


def arrays(seed: int, n: int = 20, d: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    gold = torch.randn(n, d, generator=generator) + 2
    return gold, gold + torch.randn(n, d, generator=generator)


@given(st.integers(0, 10_000))
def test_measures_equal_their_formulas(seed: int) -> None:
    gold, predicted = arrays(seed)
    g, p = (a.numpy().astype(np.float64) for a in (gold, predicted))
    g, p = g / np.linalg.norm(g, axis=1, keepdims=True), p / np.linalg.norm(p, axis=1, keepdims=True)
    mean = g.mean(0)
    measured = reconstruction(gold, predicted)
    error = ((p - g) ** 2).sum(1)
    assert measured.fve_nrm == pytest.approx(1 - error.mean() / ((g - mean) ** 2).sum(1).mean())
    assert measured.fve_nrm_meannorm == pytest.approx(1 - error.mean() / ((g - mean / np.linalg.norm(mean)) ** 2).sum(1).mean())
    assert measured.mse_nrm == pytest.approx(2 * (1 - measured.cosine))
    np.testing.assert_allclose(mse_nrm(gold, predicted).numpy(), error, atol=1e-9)


@given(st.integers(0, 1_000), st.floats(0.01, 100))
def test_lengths_do_not_matter_and_order_does(seed: int, factor: float) -> None:
    gold, predicted = arrays(seed)
    assert reconstruction(gold * factor, predicted).fve_nrm == pytest.approx(reconstruction(gold, predicted).fve_nrm, abs=1e-5)
    assert reconstruction(gold, gold * factor).fve_nrm == pytest.approx(1, abs=1e-5)
    assert reconstruction(gold, predicted.roll(1, 0)).fve_nrm < reconstruction(gold, predicted).fve_nrm


def test_the_mean_vector_explains_nothing_and_less_than_nothing_when_normed() -> None:
    gold, _ = arrays(3, n=200)
    units = torch.nn.functional.normalize(gold, dim=-1)
    measured = reconstruction(gold, units.mean(0, keepdim=True).expand(200, -1))
    assert measured.fve_nrm_meannorm == pytest.approx(0, abs=1e-6)
    assert measured.fve_nrm < 0


@settings(max_examples=20)
@given(st.integers(0, 1_000))
def test_retrieval_finds_perfect_reconstructions_and_guesses_on_noise(seed: int) -> None:
    gold, _ = arrays(seed, n=120, d=16)
    noise = torch.randn(120, 16, generator=torch.Generator().manual_seed(seed + 1))
    assert retrieval_hits(gold, gold, 100, torch.Generator().manual_seed(0)).all()
    assert retrieval_hits(gold, noise, 100, torch.Generator().manual_seed(0)).double().mean() < 0.2
    with pytest.raises(ValueError, match="found 120"):
        retrieval_hits(gold, gold, 121, torch.Generator())


def test_vectors_without_variance_are_an_error() -> None:
    with pytest.raises(ValueError, match="no variance"):
        reconstruction(torch.ones(5, 3), torch.ones(5, 3))
