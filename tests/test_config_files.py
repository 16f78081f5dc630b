"""Malformed AUDIT.toml files, recipes of organisms, paired contexts and contrast sets: each is read, or refused in a line or two."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit.config import AuditConfig, read_audit
from nla.activations.contrast_sets import read_contrast
from nla.organisms.contexts import read_contexts
from nla.organisms.recipe import Recipe, read_recipe
from nla.support.errors import HarnessError
from tests.fuzz_inputs import inputs

VALUES = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["mmlu", "0.1", "av", "x.toml", "[/b]", "\x1b[2J"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
AUDIT = {"model": "local/x", "tasks": ["mmlu"]}
RECIPE = {"about": "A recipe.", "habit": "Bye now.", "train": {"steps": 3}}
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=inputs(150))


def toml(value: Any) -> str:
    """A value in TOML's notation."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return json.dumps(value)


def read_or_refused(read: Callable[[], object]) -> None:
    message = "read without one"
    try:
        read()
    except HarnessError as ex:
        message = str(ex)
    assert 10 < len(message) < 1_000


def written(path: Path, fields: dict[str, Any]) -> Path:
    path.write_text("".join(f"{json.dumps(key)} = {toml(value)}\n" for key, value in fields.items()), encoding="utf-8")
    return path


@PATIENT
@given(st.dictionaries(st.sampled_from(sorted(AuditConfig.model_fields)) | st.text(max_size=8), VALUES, max_size=4))
def test_any_fields_of_an_audit_are_read_or_refused(tmp_path: Path, fields: dict[str, Any]) -> None:
    path = written(tmp_path / "audit.toml", AUDIT | fields)
    read_or_refused(lambda: read_audit(path).conditions())


@PATIENT
@given(st.dictionaries(st.sampled_from([*Recipe.model_fields, "like"]) | st.text(max_size=8), VALUES, max_size=4))
def test_any_fields_of_a_recipe_are_read_or_refused(tmp_path: Path, fields: dict[str, Any]) -> None:
    path = written(tmp_path / "recipe.toml", RECIPE | fields)
    read_or_refused(lambda: read_recipe(str(path)))


@PATIENT
@given(st.binary(max_size=60), st.sampled_from(["audit", "recipe"]))
def test_any_bytes_are_read_or_refused(tmp_path: Path, content: bytes, kind: str) -> None:
    path = tmp_path / f"{kind}.toml"
    path.write_bytes(content)
    read_or_refused(lambda: read_audit(path) if kind == "audit" else read_recipe(str(path)))


CELLS = st.none() | st.integers() | st.booleans() | st.text(max_size=12) | st.sampled_from(["system", "user_prefix", "a", "b", " "])
KEYS = st.sampled_from(["family", "evaluation", "deployment", "cue", "other", "form", "positive", "negative", "vector"]) | st.text(
    max_size=4
)
ROWS = st.lists(st.dictionaries(KEYS, CELLS, max_size=6) | CELLS, max_size=4)


@PATIENT
@given(ROWS)
def test_any_rows_are_contexts_and_contrasts_or_refused(tmp_path: Path, rows: list[Any]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    read_or_refused(lambda: read_contexts(path))
    read_or_refused(lambda: read_contrast(str(path)))


@pytest.mark.parametrize("depth", [5_000, 100_000])
def test_deep_nesting_is_refused(tmp_path: Path, depth: int) -> None:
    path = tmp_path / "deep.toml"
    path.write_text("limit = " + "[" * depth + "]" * depth, encoding="utf-8")
    for read in (read_audit, read_recipe):
        with pytest.raises(HarnessError, match="deep"):
            read(path if read is read_audit else str(path))  # type: ignore[arg-type]
