"""Option strings, paths and rows of unknown origin: whatever they hold, the answer is a value or one of our errors."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nla.pair.known import role_folder
from nla.support.errors import ConfigError, DataError, HarnessError
from nla.support.paths import user_path
from nla.support.plugins import VERBALIZERS, PluginPackage, split_spec
from nla.support.rows import content_id, read_file
from nla.verbalizers.av import AVOptions
from nla.verbalizers.av_vllm import VLLMOptions
from nla.verbalizers.base import read_options
from tests.fuzz_inputs import inputs

ANY = st.text(st.characters(), max_size=30)
ODD = st.sampled_from(
    ["²", "٣", "9" * 5000, "1_0", "-1", "nan", "inf", "1e999", "", " ", "true", "\ud800", "\0", "[/b]", "\x1b[31m", "0x1"]
)
KEYS = st.sampled_from(["best_of", "temperature", "reconstruct", "nla", "model", "layer", "tensor_parallel", "gpu_memory"])


def tried(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns, or the `HarnessError` it raises."""
    try:
        return function(*arguments)
    except HarnessError as ex:
        return ex


@settings(max_examples=inputs(100))
@given(st.text(st.sampled_from("av:=_bestof1²[/] \x1b\ud800"), max_size=40) | ANY)
def test_any_verbalizer_name_is_known_or_refused(spec: str) -> None:
    name = tried(VERBALIZERS.check, spec)
    assert name in VERBALIZERS.names() or (isinstance(name, ConfigError) and len(str(name)) < 400)


@settings(max_examples=inputs(300))
@given(st.dictionaries(KEYS | st.text(max_size=5), ODD | ANY, max_size=3), st.sampled_from([AVOptions, VLLMOptions]))
def test_any_options_are_valid_or_refused(typed: dict[str, str], kind: type[AVOptions] | type[VLLMOptions]) -> None:
    options = tried(read_options, kind, typed)
    if isinstance(options, ConfigError):
        assert len(str(options)) < 1000
        assert "\x1b" not in str(options)
    else:
        assert options.temperature is None or 0 <= options.temperature <= 100


@given(st.text(st.sampled_from("ab_=:"), max_size=30))
def test_a_name_and_its_options_are_split_and_joined_again(spec: str) -> None:
    result = tried(split_spec, spec)
    if isinstance(result, ConfigError):
        assert "more than once" in str(result)
    else:
        name, options = result
        assert ":".join([name, *(f"{key}={value}" for key, value in options.items())]) == spec


def test_options_that_are_arguments_of_the_factory_are_refused() -> None:
    module = ModuleType("plugin")

    def build(model: str, layer: int, *, size: str = "1") -> tuple[str, int, str]:
        return model, layer, size

    module.build = build  # type: ignore[attr-defined]

    class Package(PluginPackage):
        def load(self, spec: str) -> ModuleType:
            return module

    package = Package("x", Path(), "thing")
    assert package.build("a:size=3", "m", 2) == ("m", 2, "3")
    for spec in ("a:model=1", "a:layer=1", "a:sizes=1"):
        with pytest.raises(ConfigError, match="has no option"):
            package.build(spec, "m", 2)


@settings(max_examples=inputs(100))
@given(ANY | ODD | st.text(st.sampled_from("~/.a\0\ud800"), max_size=20) | st.integers(200, 5000).map(lambda n: "x" * n))
def test_any_text_is_a_path_or_refused(text: str) -> None:
    path = tried(user_path, text)
    assert isinstance(path, ConfigError) or path.exists() in (True, False)
    assert isinstance(path, Path) or len(str(path)) < 300


@settings(max_examples=inputs(100))
@given(ODD | st.text(st.sampled_from("~ -²\0\ud800[]:"), max_size=20).filter(lambda text: text.strip() != "~"))
def test_any_text_that_names_no_pair_is_refused_without_the_network(text: str) -> None:
    with pytest.raises(ConfigError):
        role_folder(text, "av")


@pytest.mark.slow
def test_a_pair_of_the_wrong_type_is_refused() -> None:
    """In a process of its own: here, the tests' type checks would refuse it first."""
    code = (
        "from nla.pair.known import role_folder; from nla.support.errors import ConfigError\n"
        "for where in (3, None, b'x', ['smollm2'], '', 1.5):\n"
        "    try: role_folder(where, 'av')\n"
        "    except ConfigError as ex: print(ex)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    assert [line.rpartition(" does not name a pair")[0] for line in done.stdout.splitlines()] == [
        "3",
        "None",
        "b'x'",
        "['smollm2']",
        "''",
        "1.5",
    ]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=inputs(150))
@given(st.sampled_from([".csv", ".json", ".jsonl", ".parquet"]), st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_rows_or_refused(tmp_path: Path, suffix: str, raw: bytes) -> None:
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(raw)
    rows = tried(read_file, path)
    if isinstance(rows, DataError):
        assert "\n" not in str(rows)
    else:
        assert all(isinstance(name, str) for row in rows for name in row)


def test_rows_that_are_longer_than_the_header_deep_or_half_a_character(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n1,2,3\n")
    with pytest.raises(DataError, match="longer than the header"):
        read_file(path)
    path.write_text("a\n" + "x" * 200_000 + "\n")
    assert len(read_file(path)[0]["a"]) == 200_000
    path = tmp_path / "rows.json"
    path.write_text("[" * 100_000)
    with pytest.raises(DataError, match="cannot be read"):
        read_file(path)
    path.write_text(json.dumps([{"a\udfff": ["\ud800x"], "b": {"c": "é"}}]))
    assert read_file(path) == [{"a\ufffd": ["\ufffdx"], "b": {"c": "é"}}]


@given(st.lists(ANY, max_size=3))
def test_ids_of_content_exist_for_any_text(parts: list[str]) -> None:
    assert len(content_id(*parts)) == 12


def test_a_module_with_the_factory_is_a_plug_in_and_its_helpers_are_none(tmp_path: Path) -> None:
    sources = {"new": "def build(model):\n    ...\n", "helper": 'def rebuild():\n    return "def build("\n', "_hidden": "x = 1\n"}
    sources |= {"later": "import x\n\n\nasync def build(a): ...\n", "assigned": "build = object\n", "user": "from x import rebuild\n"}
    sources |= {"long": "from x.y import (\n    LIMIT,\n    build,\n)\n", "other": "from x import (\n    a,\n)\n\nbuilder = a\n"}
    for name, source in sources.items():
        (tmp_path / f"{name}.py").write_text(source)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("from x.y import LIMIT, build\n")
    assert PluginPackage("x", tmp_path, "thing").names() == ["assigned", "later", "long", "new", "package"]
