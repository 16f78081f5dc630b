"""The mean Jacobian equals autograd's on a tiny model, and the lens reads with it; a lens of another model or layer is refused."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from nla.activations.jacobian import mean_jacobian
from nla.activations.mean_vector import mean_vector
from nla.cli import app
from nla.models.loaded import LoadedModel, load_model
from nla.support.errors import ConfigError, ContractError
from nla.support.plugins import VERBALIZERS
from nla.verbalizers.jacobian_lens import SHIPPED, read_lens, save_lens

PROMPTS = [[10, 40, 7, 90, 33], [5, 5, 80, 21, 60], [71, 2, 9, 4, 100], [8, 30, 6, 44, 12], [1, 2, 3, 4, 5]]


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_the_mean_jacobian_equals_autograd(family: str, tiny_folder: Callable[[str], Path], independent: Callable) -> None:
    model, layer = load_model(str(tiny_folder(family)), dtype="float32", device="cpu"), 1
    network = independent(tiny_folder(family))
    network.set_attn_implementation("eager")
    blocks = network.transformer.h if family == "gpt2" else network.model.layers
    expected = torch.zeros(model.d_model, model.d_model, dtype=torch.float64)
    for prompt in PROMPTS:
        streams: list[Tensor] = []

        def ending(at_k: Tensor, prompt: list[int] = prompt) -> Tensor:
            """The last block's output as a function of block K's output."""
            ends: list[Tensor] = []

            def put(_m: object, _i: object, out: Tensor | tuple[Tensor, ...]) -> object:
                return (at_k, *out[1:]) if isinstance(out, tuple) else at_k

            handles = [
                blocks[layer].register_forward_hook(put),
                blocks[-1].register_forward_hook(lambda _m, _i, out: ends.append(out[0] if isinstance(out, tuple) else out)),
            ]
            network(torch.tensor([prompt]), use_cache=False)
            for handle in handles:
                handle.remove()
            return ends[0]

        handle = blocks[layer].register_forward_hook(
            lambda _m, _i, out, streams=streams: streams.append(out[0] if isinstance(out, tuple) else out)
        )
        with torch.no_grad():
            network(torch.tensor([prompt]), use_cache=False)
        handle.remove()
        full = torch.autograd.functional.jacobian(ending, streams[0])[0, :, :, 0]  # [t', i, t, j]
        for t in range(1, 5):
            for later in range(t, 5):
                expected += full[later, :, t, :].double()
    fitted = mean_jacobian(model, layer, PROMPTS)
    torch.testing.assert_close(fitted.matrix.double(), expected / 20, atol=1e-4, rtol=1e-3)
    assert (fitted.n_prompts, fitted.n_positions) == (5, 20)


def test_the_model_is_as_before(tiny: LoadedModel) -> None:
    ids = torch.tensor(PROMPTS[:1])
    with torch.no_grad():
        before = tiny.network(ids).logits
        mean_jacobian(tiny, 0, PROMPTS[:2])
        torch.testing.assert_close(tiny.network(ids).logits, before, atol=0, rtol=0)
    assert not any(parameter.requires_grad for parameter in tiny.network.parameters())


@pytest.mark.parametrize("prompts", [PROMPTS[:1], [[1, 2], [1, 2, 3]], [[1], [2]], []])
def test_prompts_of_which_no_mean_can_be_taken_are_refused(prompts: list[list[int]], tiny: LoadedModel) -> None:
    with pytest.raises(ConfigError, match="expected at least 2 prompts"):
        mean_jacobian(tiny, 1, prompts)


def test_the_lens_reads_with_its_matrix(tiny: LoadedModel, tmp_path: Path) -> None:
    fitted = mean_jacobian(tiny, 1, PROMPTS)
    path = tmp_path / "lens.safetensors"
    save_lens(path, tiny, 1, fitted)
    assert read_lens(path).n_prompts == 5
    lens = VERBALIZERS.build(f"jacobian_lens:file={path}", tiny, 1, None)
    vectors = torch.randn(3, tiny.d_model, generator=torch.Generator().manual_seed(1))
    explanations = lens.verbalize(vectors, [("k", i) for i in range(3)])
    with torch.no_grad():
        j = fitted.matrix.to(torch.float16).float()
        for vector, explanation in zip(vectors, explanations, strict=True):
            plain = tiny.unembedding(tiny.final_norm((j @ vector)[None]))[0].topk(8).indices
            beyond = tiny.unembedding(tiny.final_norm((j @ (vector - mean_vector(tiny, 1)))[None]))[0].topk(8).indices
            quoted = [", ".join(f'"{tiny.tokenizer.decode([token])}"' for token in top.tolist()) for top in (plain, beyond)]
            assert explanation.text == f"top tokens: {quoted[0]} | beyond the mean: {quoted[1]}"


def test_a_lens_that_does_not_fit_is_refused(tiny: LoadedModel, tmp_path: Path) -> None:
    path = tmp_path / "lens.safetensors"
    save_lens(path, tiny, 1, mean_jacobian(tiny, 1, PROMPTS[:2]))
    with pytest.raises(ContractError, match="The lens is for"):
        VERBALIZERS.build(f"jacobian_lens:file={path}", tiny, 2, None)
    with pytest.raises(ConfigError, match="No Jacobian lens is known for layer 1"):
        VERBALIZERS.build("jacobian_lens", tiny, 1, None)
    (tmp_path / "broken.safetensors").write_bytes(b"x")
    with pytest.raises(ContractError, match="is no Jacobian lens"):
        VERBALIZERS.build(f"jacobian_lens:file={tmp_path / 'broken.safetensors'}", tiny, 1, None)
    with pytest.raises(ConfigError, match="has no option wrong"):
        VERBALIZERS.build("jacobian_lens:wrong=1", tiny, 1, None)


def test_the_command_writes_a_lens_or_nothing(tiny_folder: Callable[[str], Path], tmp_path: Path) -> None:
    out = tmp_path / "lens.safetensors"
    arguments = ["lens", "fit", str(tiny_folder("llama")), "-o", str(out), "--n", "6", "--tokens", "8", "--device", "cpu", "--layer", "1"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert read_lens(out).layer == 1
    refused = CliRunner().invoke(app, [*arguments[:6], "400000", *arguments[7:]])
    assert "expected 400000" in str(refused.exception)


def test_the_shipped_lens_is_small_and_has_converged() -> None:
    for path in SHIPPED.glob("*.safetensors"):
        assert path.stat().st_size < 1_000_000
        assert read_lens(path).halves_cosine > 0.9
