"""The config file of a low-rank adapter, checked before peft sees it.

An adapter may come from an untrusted source. peft compiles some of the config's fields as regular expressions, imports modules that
the config names, and allocates memory according to its sizes. Therefore only the fields that a plain LoRA needs are passed to peft, and
all other fields must have their default values.
"""

import dataclasses
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from peft import LoraConfig

from nla.support.display import visible
from nla.support.errors import ContractError, first_line

CONFIG_FILE = "adapter_config.json"
_MOST_BYTES = 4 * 2**20
_MOST_NAMES = 4_096
_LARGEST_RANK = 2**16
_MODULE = re.compile(r"[A-Za-z0-9_.-]{1,300}")
"""A module's name, or its last parts."""
_PATTERN = re.compile(r"\^?([A-Za-z0-9_-]|\\?\.){1,300}(\.\*)?\$?")
"""The patterns that peft and this project write: a module's name, in which dots may be escaped and which may end in `.*`. Matching such a
pattern is always fast."""
_IGNORED = frozenset({"peft_version", "task_type", "inference_mode", "revision", "init_lora_weights", "base_model_name_or_path"})
"""Fields that do not change what the adapter computes."""
_USED = frozenset({"peft_type", "r", "lora_alpha", "lora_dropout", "target_modules", "rank_pattern", "alpha_pattern"})
_FLAGS = ("use_rslora", "fan_in_fan_out")


def read_adapter_config(folder: Path, tensor_names: Sequence[str]) -> LoraConfig:
    """Read a folder's `adapter_config.json` as a plain LoRA.

    Args:
        folder: the adapter's folder.
        tensor_names: names of the tensors in its weights file. Where the config selects modules by a regular expression, the modules'
            names are taken from these.

    Raises:
        ContractError: the file cannot be read, a field has the wrong type or size, or the kind of adapter is not supported.
    """
    config = read_json_object(folder / CONFIG_FILE)
    try:
        _refuse_others(config)
        return LoraConfig(
            r=_whole(config, "r", 8, _LARGEST_RANK),
            lora_alpha=_number(config.get("lora_alpha", 8), "lora_alpha"),  # type: ignore[arg-type]  # may be a fraction
            lora_dropout=_number(config.get("lora_dropout", 0.0), "lora_dropout", most=1.0, least=0.0),
            target_modules=_modules(config.get("target_modules"), tensor_names),
            rank_pattern={key: _whole(ranks, key, 0, _LARGEST_RANK) for ranks in [_patterns(config, "rank_pattern")] for key in ranks},
            alpha_pattern={key: _number(value, key) for key, value in _patterns(config, "alpha_pattern").items()},
            base_model_name_or_path=_text(config.get("base_model_name_or_path")),
            use_rslora=_flag(config, "use_rslora"),
            fan_in_fan_out=_flag(config, "fan_in_fan_out"),
        )
    except ValueError as ex:
        raise ContractError(
            f"The adapter in {visible(folder)} cannot be used: {visible(first_line(ex))}. "
            "Expected a plain LoRA as peft saves it; train or convert the adapter again."
        ) from ex


def read_json_object(path: Path, most_bytes: int = _MOST_BYTES) -> dict[str, Any]:
    """Read a JSON file of an adapter's folder.

    Raises:
        ContractError: the file cannot be read, is larger than `most_bytes`, or does not hold an object.
    """
    try:
        if path.stat().st_size > most_bytes:
            raise ValueError(f"{path.stat().st_size:,} bytes, at most {most_bytes:,} are read")
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as ex:
        raise ContractError(
            f"{visible(path)} cannot be read: {visible(first_line(ex))}. Expected a JSON object as peft saves it; save the adapter again."
        ) from ex
    if not isinstance(config, dict):
        raise ContractError(f"{visible(path)} holds a {type(config).__name__}; expected a JSON object as peft saves it.")
    return config


def _refuse_others(config: Mapping[str, Any]) -> None:
    """Refuse fields that would change what the adapter computes, or make peft import or allocate something."""
    if config.get("peft_type") not in ("LORA", None):
        raise ValueError(f"its peft_type is {_short(config['peft_type'])}, expected LORA")
    defaults = {field.name: field.default for field in dataclasses.fields(LoraConfig)}
    for key, value in config.items():
        if key in _IGNORED or key in _USED or key in _FLAGS or value in (None, False, {}, []):
            continue
        is_default = type(value) is type(defaults.get(key)) and value == defaults[key]
        if not is_default and not (key == "auto_mapping" and _names_transformers(value)) and not _DEFAULTS.get(key) == value:
            raise ValueError(f"its field {_short(key)} is {_short(value)}, which is not supported")


_DEFAULTS: dict[str, Any] = {"bias": "none", "megatron_core": "megatron.core", "qalora_group_size": 16}
"""Values that peft writes into every config."""


def _names_transformers(mapping: object) -> bool:
    """Return whether an `auto_mapping` names a class of transformers. peft writes such a mapping when no task type was given."""
    library = mapping.get("parent_library") if isinstance(mapping, dict) else None
    return isinstance(library, str) and re.fullmatch(r"transformers(\.\w{1,80}){0,8}", library) is not None


def _modules(value: object, tensor_names: Sequence[str]) -> list[str]:
    """Return the names of the modules to which the adapter is added."""
    if isinstance(value, str):  # a regular expression or `all-linear`; the weights file shows which modules it selects
        ends = (".lora_A.weight", ".lora_B.weight")
        value = sorted(
            {name.removeprefix("base_model.model.").removesuffix(end) for name in tensor_names for end in ends if name.endswith(end)}
        )
    names = value if isinstance(value, list) else []
    if not 0 < len(names) <= _MOST_NAMES or not all(isinstance(name, str) and _MODULE.fullmatch(name) for name in names):
        raise ValueError(f"its target_modules is {_short(value)}, expected 1 to {_MOST_NAMES} module names")
    return names


def _patterns(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    patterns = config.get(name) or {}
    if not isinstance(patterns, dict) or len(patterns) > _MOST_NAMES:
        raise ValueError(f"its {name} is {_short(patterns)}, expected at most {_MOST_NAMES} module names with a number each")
    for pattern in patterns:
        if not _PATTERN.fullmatch(pattern):
            raise ValueError(f"its {name} holds the regular expression {_short(pattern)}, expected a module name")
    return patterns


def _whole(values: Mapping[str, Any], key: str, default: int, most: int) -> int:
    value = values.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ValueError(f"its rank ({key}) is {_short(value)}, expected an integer from 1 to {most}")
    return value


def _number(value: object, name: str, *, least: float = -1e9, most: float = 1e9) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most or not math.isfinite(value):
        raise ValueError(f"its {name} is {_short(value)}, expected a number from {least:g} to {most:g}")
    return value


def _flag(config: Mapping[str, Any], name: str) -> bool:
    value = config.get(name) or False
    if not isinstance(value, bool):
        raise ValueError(f"its {name} is {_short(value)}, expected true or false")
    return value


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and len(value) <= 1_000 else None


def _short(value: object) -> str:
    try:
        return visible(repr(value), limit=80)
    except (ValueError, RecursionError):  # an integer of more than 4,300 digits, or deep nesting
        return f"a {type(value).__name__}"
