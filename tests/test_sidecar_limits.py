"""Sidecars of unknown origin: whatever they hold, the answer is a sidecar or a `ContractError` of one line, within a second."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nla.models.loaded import LoadedModel
from nla.pair.contract import SIDECAR, Sidecar, av_prompt_ids, check_sidecar, read_sidecar, write_sidecar
from nla.support.errors import ContractError
from nla.support.limited_yaml import MAX_BYTES, read_yaml
from tests.fuzz_inputs import inputs

GOOD: dict[str, Any] = {
    "kind": "nla_model",
    "role": "av",
    "d_model": 32,
    "base_checkpoint": "org/base",
    "extraction_layer_index": 1,
    "extraction": {"injection_scale": 150.0, "mse_scale": None},
    "tokens": {"injection_char": "@", "injection_token_id": 1, "injection_left_neighbor_id": 2, "injection_right_neighbor_id": 3},
    "prompt_templates": {"av": "Say <{injection_char}>", "ar": "{explanation} End."},
    "harness": {"temperature": 0.2, "max_tokens": 96, "lines_without_repeats": 2},
}
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(10**30, 10**40), st.floats(), st.text(st.characters(), max_size=20), st.dates()
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=6
)
PATHS = [(key,) for key in GOOD] + [(key, inner) for key, group in GOOD.items() if isinstance(group, dict) for inner in group]


def read(folder: Path, text: str | bytes) -> Sidecar | str:
    """The sidecar of a text, or the message of its refusal."""
    (folder / SIDECAR).write_bytes(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)
    started = time.perf_counter()
    outcome: Sidecar | str
    try:
        outcome = read_sidecar(folder)
    except ContractError as ex:
        outcome = str(ex)
    assert time.perf_counter() - started < 5
    assert isinstance(outcome, Sidecar) or ("\n" not in outcome and len(outcome) < 700 + len(str(folder)))
    return outcome


def changed(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    meta = json.loads(json.dumps(GOOD))
    group = meta if len(path) == 1 else meta[path[0]]
    group[path[-1]] = value
    return meta


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=inputs(300))
@given(st.sampled_from(PATHS), VALUES, st.sampled_from(["av", "ar"]))
def test_any_value_in_any_field_is_taken_or_refused(tmp_path: Path, path: tuple[str, ...], value: Any, role: str) -> None:
    meta = changed(("role",), role)
    group = meta if len(path) == 1 else meta[path[0]]
    group[path[-1]] = value
    sidecar = read(tmp_path, yaml.safe_dump(meta, allow_unicode=True))
    if isinstance(sidecar, Sidecar):
        assert isinstance(sidecar.layer, int)
        assert 0 <= sidecar.temperature <= 100
        assert sidecar.max_tokens >= 1
        write_sidecar(tmp_path, sidecar)
        assert read_sidecar(tmp_path) == sidecar


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=inputs(300))
@given(st.binary(max_size=60) | st.text(st.sampled_from("[]{}&*!%@`'\"|>-?:,#\n a1~.<="), max_size=40).map(str.encode), st.booleans())
def test_any_bytes_are_taken_or_refused(tmp_path: Path, raw: bytes, appended: bool) -> None:
    read(tmp_path, yaml.safe_dump(GOOD).encode() + raw if appended else raw)


BOMBS = {
    "aliases": "a: &a [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(9)),
    "an alias to itself": "a: &a [*a]\n",
    "a merge of aliases": "a: &a {b: 1}\nc: {<<: *a}\n",
    "nested lists": "a: " + "[" * 50_000,
    "nested blocks": "\n".join(" " * i + "a:" for i in range(300)),
    "a long file": "a: " + "x" * (MAX_BYTES + 1),
    "a long number": "d_model: " + "9" * 5_000,
    "a sexagesimal number": "d_model: 1" + ":59" * 20_000,
    "a python object": "a: !!python/object/apply:os.system ['true']\n",
    "an impossible date": "a: 2001-99-99\n",
    "an odd integer": "a: !!int 'x'\n",
    "an empty integer": "a: !!int ''\n",
    "an odd float": "a: !!float []\n",
    "an odd binary": "a: !!binary '\u00e9'\n",
    "an unhashable key": "? [a]\n: b\n",
    "two documents": "a: 1\n---\nb: 2\n",
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_and_tricks_of_yaml_end_quickly_in_a_refusal(tmp_path: Path, name: str) -> None:
    message = read(tmp_path, BOMBS[name])
    assert isinstance(message, str)
    if "alias" in name:
        assert "uses an alias" in message


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("prompt_templates", "av"), "{injection_char:>999999999}", "has the placeholder '{injection_char:>999999999}'"),
        (("prompt_templates", "av"), "{injection_char.__class__.__mro__}", "placeholder"),
        (("prompt_templates", "av"), "{0}{injection_char}", "placeholder '{0}'"),
        (("prompt_templates", "av"), "x" * 20_001, "at most 20,000 characters"),
        (("tokens", "injection_char"), "@" * 65, "at most 64 characters"),
        (("tokens", "injection_char"), "\ud800", "without lone surrogates"),
        (("tokens", "injection_token_id"), True, "is True; expected an integer"),
        (("tokens", "injection_token_id"), "²", "expected an integer"),
        (("d_model",), 10**40, "d_model is a very long number"),
        (("d_model",), 0, "expected an integer from 1"),
        (("extraction_layer_index",), -1, "expected an integer from 0"),
        (("extraction", "injection_scale"), float("inf"), "not a positive number"),
        (("extraction", "injection_scale"), 10**400, "not a positive number"),
        (("extraction",), [1], "expected a group of fields"),
        (("harness", "temperature"), "hot", "harness.temperature is 'hot'"),
        (("harness", "max_tokens"), 10**9, "harness.max_tokens"),
        (("role",), "\x1b]0;title\x07", r"role is '\x1b]0;title\x07'"),
    ],
)
def test_what_a_field_holds_and_what_was_expected_are_said(tmp_path: Path, path: tuple[str, ...], value: Any, said: str) -> None:
    message = read(tmp_path, yaml.safe_dump(changed(path, value), allow_unicode=True))
    assert isinstance(message, str)
    assert said in message.replace("\\\\x", "\\x")


def test_an_ar_without_a_place_for_the_explanation_is_refused(tmp_path: Path) -> None:
    meta = changed(("role",), "ar") | {"prompt_templates": {"ar": "no place"}}
    assert "every explanation would be read alike" in str(read(tmp_path, yaml.safe_dump(meta)))


def test_an_ars_depth_is_read_within_limits_too(tmp_path: Path) -> None:
    meta = changed(("role",), "ar")
    del meta["extraction_layer_index"]
    for config in ("[" * 100_000, "{", "[]", "{}", '{"num_hidden_layers": "x"}', '{"num_hidden_layers": true}', "9" * 5_000):
        (tmp_path / "config.json").write_text(config)
        assert "wrong form" in str(read(tmp_path, yaml.safe_dump(meta)))


def test_a_sidecar_that_is_not_a_file_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / SIDECAR)
    with pytest.raises(ContractError, match="not a regular file"):
        read_sidecar(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_yaml(tmp_path / "missing")


def test_doubled_braces_are_single_ones_as_in_the_reference(tiny: LoadedModel) -> None:
    token = {character: int(tiny.tokenizer.encode(character, add_special_tokens=False)[0]) for character in "@<>"}
    from nla.pair.contract import Marker

    template = 'Fill {{"a": "{{}}"}} <{injection_char}>'
    sidecar = Sidecar("av", 32, 1, "", template, Marker("@", token["@"], token["<"], token[">"]), 3.0, None)
    check_sidecar(sidecar, tiny)
    assert template.format(injection_char="@") in tiny.tokenizer.decode(av_prompt_ids(tiny.tokenizer, sidecar))
