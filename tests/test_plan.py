"""`nla plan`: weights, adapters and what is kept for the gradient, counted without memory, beside real networks that have some."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nla.models.adapters import AdapterSpec, adapter_parameters, add_adapter, shared_copy
from nla.models.loaded import LoadedModel, load_model
from nla.pair.known import SHIPPED as PAIRS
from nla.support.errors import ModelError
from nla.training import plan
from nla.training.config import read_config
from nla.training.plan import Shape, config_of, plan_of
from tests.commands import typed

SPEC = AdapterSpec(rank=4, first_ranks=(8,))


def shape(layer: int, **fields: int) -> Shape:
    return Shape(layer=layer, av=SPEC, ar=SPEC, **{"part": 3, "tokens": 10, "rollouts": 6, **fields})


def really_kept(model: LoadedModel, part: int, tokens: int) -> int:
    """Bytes that a real network keeps for the gradient, without its parameters."""
    role = shared_copy(model)
    add_adapter(role, AdapterSpec(rank=4))
    role.network.set_attn_implementation("sdpa")
    kept: dict[int, int] = {}
    alive: list[Tensor] = []
    own = {parameter.untyped_storage().data_ptr() for parameter in role.network.parameters()}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    embeds = torch.randn(part, tokens, model.d_model)
    mask = torch.ones(part, 1, tokens, tokens, dtype=torch.bool).tril()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        role.network.get_decoder()(inputs_embeds=embeds, attention_mask=mask, use_cache=False)
    return sum(kept.values())


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_what_is_planned_is_what_a_real_network_has(family: str, tiny_folder: Callable[[str], Path]) -> None:
    model = load_model(str(tiny_folder(family)), dtype="float32", device="cpu")
    config = config_of(str(tiny_folder(family)))
    planned = plan_of(config, shape(model.n_layers - 1), dtype="float32")
    assert planned.weights == 4 * sum(parameter.numel() for parameter in model.network.parameters())
    role = shared_copy(model)
    add_adapter(role, SPEC)
    n_adapter = sum(parameter.numel() for parameter in adapter_parameters(role))
    assert planned.adapters == 20 * (2 * n_adapter + model.d_model**2) + 2 * 4 * n_adapter
    kept = plan._kept(config, model.n_layers, AdapterSpec(rank=4), shape(0), torch.float32)
    assert kept == pytest.approx(really_kept(model, 3, 10), rel=0.25)  # the attention kernel of a processor keeps less


def test_more_rows_and_tokens_keep_more_and_more_devices_share_the_rollouts(tiny_folder: Callable[[str], Path]) -> None:
    config = config_of(str(tiny_folder("llama")))
    small, rows, tokens = (plan_of(config, shape(1, **fields)) for fields in ({}, {"part": 6}, {"tokens": 20}))
    assert rows.activations == pytest.approx(2 * small.activations, rel=0.02)
    assert tokens.activations > 2 * small.activations * 0.98
    shared = plan_of(config, shape(1), devices=3)
    assert shared.cache == small.cache // 3
    assert (shared.weights, shared.activations) == (small.weights, small.activations)
    assert shared.adapters > small.adapters  # the gradients' exchange


def test_known_models_have_their_number_of_weights() -> None:
    for name, billions in (("llama", 1.236), ("llama-8b", 8.030), ("llama-70b", 70.554), ("qwen-0.5b", 0.494), ("qwen-7b", 7.616)):
        assert plan_of(config_of(name), shape(1)).weights / 2e9 == pytest.approx(billions, abs=6e-4), name


def test_a_layer_that_is_not_there_is_refused(tiny_folder: Callable[[str], Path]) -> None:
    with pytest.raises(ModelError, match="Layer 9 is out of range: the model has blocks 0 to 2"):
        plan_of(config_of(str(tiny_folder("llama"))), shape(9))


def test_the_command_says_what_fits(tmp_path: Path) -> None:
    out = tmp_path / "plan.json"
    done = typed("nla", "plan", "llama-70b", "--devices", "4", "--memory", "80", "--json", str(out), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "never divided" in done.stdout
    written = json.loads(out.read_text(encoding="utf-8"))
    assert written["bytes"]["bfloat16"]["weights"] > 140e9 > written["bytes"]["4bit"]["weights"]
    small = typed("nla", "plan", "llama", "--memory", "24", cwd=tmp_path)
    assert "never divided" not in small.stdout
    nameless = typed("nla", "plan", "llama-9000", cwd=tmp_path)
    assert nameless.returncode == 2
    assert "No model is named 'llama-9000'" in nameless.stderr


@pytest.mark.parametrize("recipe", ["llama-1b.toml", "qwen-0.5b.toml"])
def test_a_recipe_says_what_is_planned_for_it(recipe: str, tmp_path: Path) -> None:
    path, out = PAIRS / recipe, tmp_path / "plan.json"
    read_config(path)
    hours, gigabytes = re.findall(r"needs (\S+) hours of arithmetic at 200 TFLOP/s and (\S+) GB", path.read_text(encoding="utf-8"))[0]
    done = typed("nla", "plan", str(path), "--tflops", "200", "--json", str(out))
    assert done.returncode == 0, done.stderr
    planned = json.loads(out.read_text(encoding="utf-8"))
    assert planned["hours"] == pytest.approx(float(hours), abs=0.05)
    assert sum(planned["bytes"]["bfloat16"].values()) / 1e9 == pytest.approx(float(gigabytes), abs=0.05)
