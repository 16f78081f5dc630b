"""Finding and loading models, and the embedded model's way into the cache."""

import json
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch

from nla.models.loaded import LoadedModel, load_model
from nla.models.precision import resolve_precision
from nla.models.sources import ALIASES, alias_state, fetch, resolve_source
from nla.support.errors import ConfigError, FetchError, ModelError

Folder = Callable[[str], Path]


def test_one_copy_of_the_weights_serves_all_who_ask(tiny_folder: Folder) -> None:
    folder = str(tiny_folder("llama"))
    assert load_model(folder, dtype="float32") is load_model(folder, dtype="float32")
    assert load_model(folder, dtype="bfloat16") is not load_model(folder, dtype="float32")


@pytest.mark.parametrize(
    ("n_layers", "layer"), [(30, 20), (48, 32), (62, 41), (80, 53)], ids=["smollm2", "gemma-12b", "gemma-27b", "llama-70b"]
)
def test_the_default_layer_is_where_the_released_pairs_read(tiny: LoadedModel, n_layers: int, layer: int) -> None:
    deeper = LoadedModel(tiny.source, tiny.network, tiny.tokenizer, tiny.precision)
    deeper.blocks = torch.nn.ModuleList([torch.nn.Identity()] * n_layers)
    assert deeper.default_layer == layer


def test_a_close_name_is_suggested() -> None:
    with pytest.raises(ModelError, match="Did you mean 'smollm2'"):
        resolve_source("smolm2")


def test_a_folder_without_a_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        resolve_source(str(tmp_path))


def test_an_architecture_outside_the_table_is_refused_with_the_table(tmp_path: Path, tiny_folder: Folder) -> None:
    for file in tiny_folder("llama").iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "mamba", "architectures": ["MambaForCausalLM"]}))
    with pytest.raises(ModelError, match="'mamba' is not supported"):
        load_model(str(tmp_path), dtype="float32")


def test_damaged_weights_are_one_message(tmp_path: Path, tiny_folder: Folder) -> None:
    for file in tiny_folder("llama").iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(ModelError, match="cannot be read"):
        load_model(str(tmp_path), dtype="float32")


def test_an_unreachable_hub_names_the_other_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # the variable is read once, at import
    with pytest.raises(FetchError, match="--model local/PATH"):
        load_model("nobody/nothing-at-all", dtype="float32")
    with pytest.raises(FetchError, match="--model local/smollm2"):
        fetch("nobody/nothing-at-all", lambda _step, _share: None)


def test_states_of_aliases_are_told() -> None:
    assert alias_state(ALIASES["llama-70b"]) == "gated, to fetch"
    assert alias_state(ALIASES["smollm2"]) in ("cached", "to fetch")


@pytest.mark.parametrize("name", ["bfloat16", "float16", "float32"])
def test_an_explicit_dtype_is_taken(name: str) -> None:
    assert resolve_precision(name, torch.device("cpu")).name == name


def test_auto_dtype_says_what_it_measured() -> None:
    precision = resolve_precision("auto", torch.device("cpu"))
    assert precision.name in ("bfloat16", "float32")
    assert "measured" in precision.reason
    with pytest.raises(ConfigError, match="int4"):
        resolve_precision("int4", torch.device("cpu"))
