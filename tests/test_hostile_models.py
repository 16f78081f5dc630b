"""Damaged and hostile model folders, GGUF files, adapters and steering specifications end in a `HarnessError` and in nothing else."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from nla.activations.steering import parse_steer, steered
from nla.models import loaded
from nla.models.adapter_config import read_adapter_config
from nla.models.adapters import AdapterSpec, add_adapter, load_adapter, save_adapter, shared_copy
from nla.models.loaded import LoadedModel, load_model
from nla.support.errors import ConfigError, ContractError, HarnessError, ModelError
from tests.fuzz_inputs import inputs

Folder = Callable[[str], Path]
Damage = Callable[[Path], object]


def changed(name: str, **values: Any) -> Damage:
    """Set fields of a JSON file."""
    return lambda folder: (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | values))


def written(name: str, content: bytes) -> Damage:
    """Replace a file."""
    return lambda folder: (folder / name).write_bytes(content)


def without(name: str, key: str) -> Damage:
    """Remove a field of a JSON file."""

    def damage(folder: Path) -> None:
        config = json.loads((folder / name).read_text())
        del config[key]
        (folder / name).write_text(json.dumps(config))

    return damage


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Damage:
    """Change the weights."""

    def damage(folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        change(state)
        save_file(state, folder / "model.safetensors", {"format": "pt"})

    return damage


CONFIG, TOKENIZER, SETTINGS, WEIGHTS = "config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"
REMOTE = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
DAMAGES: dict[str, Damage] = {
    "config empty": written(CONFIG, b""),
    "config binary": written(CONFIG, bytes(range(256))),
    "config a list": written(CONFIG, b"[1, 2]"),
    "config null": written(CONFIG, b"null"),
    "config a number": written(CONFIG, b"3"),
    "config cut": written(CONFIG, b'{"model_type": "llama", "hidden_'),
    "config deep": written(CONFIG, b"[" * 100_000),
    "config deep object": written(CONFIG, b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
    "no model type": without(CONFIG, "model_type"),
    "model type a list": changed(CONFIG, model_type=["llama"]),
    "unknown model type": changed(CONFIG, model_type="evil"),
    "model type with control characters": changed(CONFIG, model_type="\x1b]0;owned\x07"),
    "code without trust": changed(CONFIG, model_type="evil", auto_map=REMOTE),
    "layers a text": changed(CONFIG, num_hidden_layers="many"),
    "layers without end": changed(CONFIG, num_hidden_layers=10**9),
    "layers negative": changed(CONFIG, num_hidden_layers=-1),
    "more layers than weights": changed(CONFIG, num_hidden_layers=900),
    "width without end": changed(CONFIG, hidden_size=10**12),
    "wide without weights": changed(CONFIG, hidden_size=2**20),
    "width zero": changed(CONFIG, hidden_size=0),
    "width a float": changed(CONFIG, hidden_size=32.5),
    "vocabulary without end": changed(CONFIG, vocab_size=10**18),
    "other vocabulary": changed(CONFIG, vocab_size=300),
    "heads zero": changed(CONFIG, num_attention_heads=0),
    "heads that do not divide": changed(CONFIG, num_attention_heads=5),
    "heads a list": changed(CONFIG, num_attention_heads=[4, 4]),
    "unknown activation": changed(CONFIG, hidden_act="os.system"),
    "unknown rope": changed(CONFIG, rope_parameters={"rope_type": "evil"}),
    "rope a list": changed(CONFIG, rope_parameters=[1]),
    "longrope without factors": changed(CONFIG, rope_parameters={"rope_type": "longrope", "rope_theta": 1e4}),
    "dtype unknown": changed(CONFIG, dtype="evil"),
    "quantization unknown": changed(CONFIG, quantization_config={"quant_method": "evil"}),
    "end tokens of a wrong type": changed("generation_config.json", eos_token_id=["a", {}]),
    "generation config a list": written("generation_config.json", b"[]"),
    "generation config cut": written("generation_config.json", b"{"),
    "weights empty": written(WEIGHTS, b""),
    "weights garbage": written(WEIGHTS, b"\xff" * 200),
    "weights header too long": written(WEIGHTS, struct.pack("<Q", 2**60) + b"{}"),
    "weights header no JSON": written(WEIGHTS, struct.pack("<Q", 8) + b"notjson!" + b"\0" * 64),
    "weights cut": lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-500]),
    "weights missing": lambda folder: (folder / WEIGHTS).unlink(),
    "weights a pickle": lambda folder: (folder / WEIGHTS).rename(folder / "pytorch_model.bin"),
    "a tensor missing": tensors(lambda state: state.pop("model.layers.1.mlp.up_proj.weight")),
    "a tensor renamed": tensors(lambda state: state.update(other=state.pop("model.layers.1.mlp.up_proj.weight"))),
    "a tensor transposed": tensors(
        lambda state: state.update({"model.norm.weight": torch.ones(4, 8), "model.layers.0.mlp.up_proj.weight": torch.ones(32, 48)})
    ),
    "weights index garbage": lambda folder: (written("model.safetensors.index.json", b"[]")(folder), (folder / WEIGHTS).unlink()),
    "weights index outside": lambda folder: (
        (folder / WEIGHTS).unlink(),
        written("model.safetensors.index.json", json.dumps({"metadata": {}, "weight_map": {"x": "../../etc/passwd"}}).encode())(folder),
    ),
    "tokenizer empty": written(TOKENIZER, b""),
    "tokenizer garbage": written(TOKENIZER, b"\x00\x01" * 50),
    "tokenizer an object": written(TOKENIZER, b"{}"),
    "tokenizer a list": written(TOKENIZER, b"[]"),
    "tokenizer vocabulary a number": changed(TOKENIZER, model={"type": "BPE", "vocab": 3, "merges": []}),
    "tokenizer ids without end": changed(TOKENIZER, model={"type": "BPE", "vocab": {"a": 2**70}, "merges": []}),
    "tokenizer of another model": changed(TOKENIZER, model={"type": "BPE", "vocab": {f"t{i}": i for i in range(5_000)}, "merges": []}),
    "tokenizer settings a list": written(SETTINGS, b"[]"),
    "tokenizer settings cut": written(SETTINGS, b"{"),
    "tokenizer class unknown": changed(SETTINGS, tokenizer_class="os.system", auto_map={"AutoTokenizer": ["evil.T", None]}),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_hostile_model_folder_is_one_message(kind: str, tiny_folder: Folder, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folder("llama"), tmp_path / "model"))
    (folder / "evil.py").write_text("raise SystemExit('code of the folder ran')\n")
    DAMAGES[kind](folder)
    said = ""
    try:
        load_model(str(folder), dtype="float32", device="cpu")
    except HarnessError as ex:
        said = ex.text
    finally:
        loaded._loaded.pop(next((key for key in loaded._loaded if key[0].location == str(folder)), None), None)  # type: ignore[arg-type]
    assert said or kind in HARMLESS
    assert len(said) < 1_200
    assert "\x1b" not in said


HARMLESS = {
    "dtype unknown",
    "quantization unknown",
    "end tokens of a wrong type",
    "generation config a list",
    "generation config cut",
    "tokenizer class unknown",
    "tokenizer settings a list",
    "weights index outside",
}
"""What the libraries ignore, after which the model is the one that it was."""


def gguf(*, tensors: int = 0, entries: int = 0, body: bytes = b"", version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, entries) + body


def entry(key: bytes, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(key)) + key + struct.pack("<I", kind) + value


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"GGUF",
        b"PK\x03\x04" + b"\0" * 40,
        gguf(version=99),
        gguf(tensors=2**62),
        gguf(entries=2**62),
        gguf(entries=1),
        gguf(entries=1, body=struct.pack("<Q", 2**63) + b"a"),
        gguf(entries=1, body=entry(b"k", 77, b"")),
        gguf(entries=1, body=entry(b"k", 8, struct.pack("<Q", 2**40))),
        gguf(entries=1, body=entry(b"k", 9, struct.pack("<IQ", 0, 2**61))),
        gguf(entries=1, body=entry(b"k", 9, struct.pack("<IQ", 8, 2**61))),
        gguf(entries=1, body=entry(b"k", 9, struct.pack("<IQ", 9, 3)) * 5),
        gguf(entries=1, body=entry(b"general.architecture", 8, struct.pack("<Q", 5) + b"llama")),
        gguf(entries=1, body=entry(b"general.architecture", 8, struct.pack("<Q", 4) + b"evil")),
    ],
)
def test_a_hostile_gguf_file_is_one_message(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.gguf|not supported"):
        load_model(str(tmp_path / "model.gguf"), dtype="float32", device="cpu")


@pytest.mark.parametrize(
    "given", [{"name": 3}, {"name": None}, {"name": ["a"]}, {"dtype": 16}, {"device": 0}, {"revision": 1}, {"trust_remote_code": "yes"}]
)
def test_an_argument_of_the_wrong_type_is_named(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(given))):
        loaded._check_arguments(**given)  # tests check annotations, so the function itself cannot be called


@pytest.mark.parametrize("name", ["x" * 300, "~nobody-here/model", "a\0b", "\x1b[31mred", "smolm2", "../..//", ""])
def test_a_name_of_no_model_is_refused(name: str) -> None:
    with pytest.raises((ModelError, ConfigError)) as refused:
        loaded.resolve_source(name)
    assert "\x1b" not in str(refused.value)
    assert len(str(refused.value)) < 700


@pytest.fixture
def adapter(tiny: LoadedModel, tmp_path: Path) -> Path:
    """Folder of a random adapter for the tiny Llama."""
    role = shared_copy(tiny)
    add_adapter(role, AdapterSpec(rank=4, first_ranks=(8,)))
    save_adapter(role.network, tmp_path / "adapter")
    return tmp_path / "adapter"


BOMB = "(a+)+" * 8 + "$"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"target_modules": [BOMB]}, "target_modules"),
        ({"target_modules": []}, "target_modules"),
        ({"target_modules": {"a": 1}}, "target_modules"),
        ({"target_modules": ["no_such_module"]}, "does not fit"),
        ({"rank_pattern": {BOMB: 4}}, "rank_pattern"),
        ({"alpha_pattern": {BOMB: 4}}, "alpha_pattern"),
        ({"rank_pattern": [1]}, "rank_pattern"),
        ({"layer_replication": [[0, 10**9]]}, "layer_replication"),
        ({"r": 10**9}, "rank"),
        ({"r": 60_000}, "another model"),
        ({"r": "4"}, "rank"),
        ({"r": True}, "rank"),
        ({"lora_alpha": float("nan")}, "lora_alpha"),
        ({"lora_alpha": "x"}, "lora_alpha"),
        ({"peft_type": "PREFIX_TUNING"}, "peft_type"),
        ({"auto_mapping": {"base_model_class": "system", "parent_library": "os"}}, "auto_mapping"),
        ({"megatron_config": {"a": 1}, "megatron_core": "evil"}, "megatron"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"use_dora": True}, "use_dora"),
        ({"eva_config": {"rho": 2}}, "eva_config"),
        ({"runtime_config": {"ephemeral_gpu_offload": True}}, "runtime_config"),
    ],
)
def test_a_hostile_adapter_config_is_refused_before_it_is_used(values: dict[str, Any], said: str, adapter: Path, tiny: LoadedModel) -> None:
    changed("adapter_config.json", **values)(adapter)
    with pytest.raises(ContractError, match=said):
        load_adapter(shared_copy(tiny), adapter)


def test_modules_given_as_a_regular_expression_are_taken_from_the_weights(adapter: Path, tiny: LoadedModel) -> None:
    listed, by_expression = shared_copy(tiny), shared_copy(tiny)
    load_adapter(listed, adapter)
    changed("adapter_config.json", target_modules=rf".*{BOMB}")(adapter)
    load_adapter(by_expression, adapter)
    ids = torch.tensor([[1, 2, 3]])
    torch.testing.assert_close(listed.network(ids).logits, by_expression.network(ids).logits)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"null", b"\xff\xfe", b'{"r":' * 30_000])
@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_damaged_adapter_files_are_one_message(name: str, content: bytes, adapter: Path, tiny: LoadedModel) -> None:
    (adapter / name).write_bytes(content)
    with pytest.raises(ContractError, match=r"cannot be read|JSON object"):
        load_adapter(shared_copy(tiny), adapter)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = [
    "r",
    "lora_alpha",
    "lora_dropout",
    "target_modules",
    "rank_pattern",
    "alpha_pattern",
    "layer_replication",
    "use_rslora",
    "auto_mapping",
]


@settings(max_examples=inputs(120), suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=8), JSON, max_size=5))
def test_any_adapter_config_is_read_or_refused(tmp_path: Path, config: dict[str, Any]) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "target_modules": ["q_proj"]} | config))
    try:
        read = read_adapter_config(tmp_path, ["base_model.model.a.lora_A.weight"])
    except ContractError:
        return
    else:
        assert 1 <= read.r <= 2**16
        assert read.layer_replication is None


PIECES = [
    "awareness",
    "random-",
    ":",
    "+",
    "-",
    "0",
    "1",
    "9" * 40,
    "²",
    "٣",
    "e",
    ".",
    "nan",
    "inf",
    "_",
    "\0",
    "~x/",
    "\x1b",
    "/",
    ".jsonl",
    "\ud800",
]


@settings(max_examples=inputs(120), suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=7).map("".join))
def test_any_steering_specification_is_taken_or_refused(tiny: LoadedModel, spec: str) -> None:
    try:
        name, strength = parse_steer(spec)
        assert abs(strength) <= 10_000
        view = steered(tiny, spec)
    except ConfigError:
        return
    else:
        assert view is tiny or name == "awareness" or name.removeprefix("random-").isascii()


@pytest.mark.parametrize(
    "spec", ["random-²:1", f"random-{'9' * 5_000}:1", f"awareness:{'9' * 5_000}", "awareness:1e99", "random-:1", "random--1:1"]
)
def test_odd_seeds_and_strengths_are_refused(spec: Any, tiny: LoadedModel) -> None:
    with pytest.raises(ConfigError, match=r"expected|whole number"):
        steered(tiny, spec)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{",
        b"3",
        b'{"positive": null, "negative": "b"}',
        b'{"positive": "a"}',
        b'{"positive": "", "negative": "b"}',
        b"\xff",
        b"[" * 90_000,
        b'{"positive": "\\ud800", "negative": "b"}',
        b'{"positive": "' + b"a" * 600 + b'", "negative": "b"}',
        b'{"positive": "a", "negative": "a"}',
    ],
)
def test_malformed_pairs_are_refused(content: bytes, tiny: LoadedModel, tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_bytes(content)
    with pytest.raises(ConfigError):
        steered(tiny, f"{tmp_path / 'pairs.jsonl'}:1")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 100,
        struct.pack("<Q", 2**60) + b"{}",
        {"other": torch.ones(3, 32)},
        {"directions": torch.ones(3, 32).int()},
        {"directions": torch.full((3, 32), torch.nan)},
        {"directions": torch.ones(32)},
    ],
)
def test_malformed_directions_are_refused(content: Any, tiny: LoadedModel, tmp_path: Path) -> None:
    path = tmp_path / "directions.safetensors"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        save_file(content, path)
    with pytest.raises(ConfigError, match="directions"):
        steered(tiny, f"{path}:1")
