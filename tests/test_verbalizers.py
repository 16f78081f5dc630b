"""The untrained verbalizers, and the contract that all of them keep."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from nla.activations.capture import residual_stream
from nla.activations.jacobian import MeanJacobian
from nla.activations.mean_vector import NEUTRAL_TEXTS, mean_vector
from nla.models.loaded import LoadedModel, load_model
from nla.support.errors import ConfigError
from nla.support.plugins import VERBALIZERS
from nla.verbalizers import verbalizer_for
from nla.verbalizers.base import UNUSABLE, Verbalizer
from nla.verbalizers.jacobian_lens import save_lens

KEYS: list[tuple[object, ...]] = [(i,) for i in range(5)]


def vectors(n: int = 5) -> torch.Tensor:
    return torch.randn(n, 32, generator=torch.Generator().manual_seed(3)) * 10


NAMES = [
    pytest.param(name, marks=pytest.mark.skip(reason="vLLM has an environment of its own; tests/test_vllm.py")) if "vllm" in name else name
    for name in VERBALIZERS.names()
]


def made(name: str, model: LoadedModel, av: Path, folder: Path) -> Verbalizer:
    """A verbalizer of the tiny model; the Jacobian lens, of which none is known for it, with a file."""
    if name != "jacobian_lens":
        return verbalizer_for(name, model, 1, str(av))
    save_lens(folder / "lens.safetensors", model, 1, MeanJacobian(torch.eye(32), 2, 2, 1.0))
    return verbalizer_for(f"{name}:file={folder / 'lens.safetensors'}", model, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_one_explanation_per_vector_whatever_the_batch(name: str, tiny: LoadedModel, tiny_av: Path, tmp_path: Path) -> None:
    verbalizer = made(name, tiny, tiny_av, tmp_path)
    together = verbalizer.verbalize(vectors(), KEYS)
    alone = [verbalizer.verbalize(vectors()[i : i + 1], KEYS[i : i + 1])[0] for i in range(5)]
    assert verbalizer.name == name
    assert together == alone
    assert len({explanation.text for explanation in together}) > 1  # the vectors are read
    assert verbalizer.layer == 1
    assert name == "av" or not any(explanation.failure for explanation in together)  # a random AV writes no tags


@pytest.mark.parametrize("name", NAMES)
def test_an_unusable_vector_fails_alone(name: str, tiny: LoadedModel, tiny_av: Path, tmp_path: Path) -> None:
    verbalizer = made(name, tiny, tiny_av, tmp_path)
    broken = vectors()
    broken[1] = torch.nan
    broken[3] = 0
    broken[4, 0] = torch.inf
    explanations = verbalizer.verbalize(broken, KEYS)
    assert [explanation.failure == UNUSABLE.failure for explanation in explanations] == [False, True, False, True, True]
    assert explanations[0] == verbalizer.verbalize(vectors(), KEYS)[0]


def test_the_logit_lens_shows_the_tokens_of_an_independent_computation(
    tiny: LoadedModel, tiny_folder: Callable[[str], Path], independent: Callable[[Path], PreTrainedModel]
) -> None:
    reference = independent(tiny_folder("llama"))
    text = verbalizer_for("logit_lens", tiny, 1).verbalize(vectors(1), KEYS[:1])[0].text
    with torch.no_grad():
        for shown, vector in zip(text.split(" | "), (vectors(1), vectors(1) - mean_vector(tiny, 1)), strict=True):
            top = reference.lm_head(reference.model.norm(vector))[0].topk(8).indices
            assert shown.partition(": ")[2] == ", ".join(f'"{tiny.tokenizer.decode([int(i)])}"' for i in top)


def test_the_last_layers_logit_lens_is_the_models_own_prediction(tiny: LoadedModel) -> None:
    ids = [256, *b"some text"]
    last = residual_stream(tiny, ids, tiny.n_layers - 1)[-1:]
    with torch.no_grad():
        predicted = int(tiny.network(torch.tensor([ids])).logits[0, -1].argmax())
    shown = verbalizer_for("logit_lens", tiny, tiny.n_layers - 1).verbalize(last, KEYS[:1])[0].text
    assert shown.startswith(f'top tokens: "{tiny.tokenizer.decode([predicted])}"')


def test_the_mean_vector_is_the_mean_of_hidden_states(
    tiny: LoadedModel, tiny_folder: Callable[[str], Path], independent: Callable[[Path], PreTrainedModel]
) -> None:
    states = []
    for text in NEUTRAL_TEXTS:
        ids = torch.tensor([tiny.tokenizer.encode(text, add_special_tokens=False)])
        with torch.no_grad():
            states.append(independent(tiny_folder("llama"))(ids, output_hidden_states=True).hidden_states[2][0, 4:])
    torch.testing.assert_close(mean_vector(tiny, 1), torch.cat(states).mean(0), rtol=1e-4, atol=1e-4)


def test_an_unknown_name_lists_the_known_ones(tiny: LoadedModel) -> None:
    with pytest.raises(ConfigError, match="av, av_vllm, jacobian_lens, logit_lens, selfie"):
        verbalizer_for("oracle", tiny, 1)


@pytest.mark.parametrize("family", ["gemma3", "gpt2", "gpt_neox"])
def test_other_families_verbalize_too(family: str, tiny_folder: Callable[[str], Path]) -> None:
    model = load_model(str(tiny_folder(family)), dtype="float32", device="cpu")
    for name in set(VERBALIZERS.names()) - {"av", "av_vllm", "jacobian_lens"}:
        assert len(verbalizer_for(name, model, 1).verbalize(vectors(2), KEYS[:2])) == 2


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("logit_lens:best_of=2", "takes no options"),
        ("av:best_of=0", "best_of"),
        ("av:speed=9", "speed"),
        ("av:best_of=2", "no AR beside it"),
        ("av:reconstruct=maybe", "reconstruct"),
        ("avv", "expected one of av, .*Did you mean 'av'"),
        ("av:nla=1", "has no option nla"),
        ("av:model=1:layer=2", "has no option model, layer"),
        ("av:best_of=2:best_of=3", "more than once"),
        ("av:temperature=nan", "temperature"),
        ("av:temperature=inf", "temperature"),
        ("av:best_of=²", "best_of"),
        ("av:best_of=" + "9" * 5000, "best_of=9+…9+: "),
        ("x" * 300, "no verbalizer named 'x+…x+'"),
    ],
)
def test_invalid_options_are_refused(spec: str, said: str, tiny: LoadedModel, tiny_av: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        verbalizer_for(spec, tiny, 1, str(tiny_av))
