"""The pair's contract: the sidecar `nla_meta.yaml` that says how an AV or AR is to be fed, read, checked and written.

Compatible with the public reference (kitft/natural_language_autoencoders) in all spellings of its schema versions 1 and 2. No
scale, marker or template of a pair is typed anywhere else in the harness: they come from here.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from nla.models.chat_template import encode, render
from nla.models.control_tokens import encode_pieces
from nla.models.loaded import LoadedModel
from nla.models.marks import Piece
from nla.pair.fields import SQRT_D_MODEL, integer, number, resolve_scale, section, shown, text
from nla.support.errors import ContractError
from nla.support.files import replacing
from nla.support.limited_yaml import read_yaml

SIDECAR = "nla_meta.yaml"
SCHEMA_VERSION = 2
MAX_TOKENS = 300
"""Longest explanation of an AV whose sidecar does not say, in tokens."""
Role = Literal["av", "ar"]
ROLES: tuple[Role, ...] = ("av", "ar")
InjectionMode = Literal["replace", "add_norm_matched"]
_MODES: dict[str, InjectionMode] = {"replace": "replace", "add_norm_matched": "add_norm_matched"}
_ROLE_NAMES: dict[str, Role] = {"av": "av", "actor": "av", "ar": "ar", "critic": "ar"}
_LAYER_KEYS = (
    ("critic", "extraction_layer_index"),
    ("critic", "num_hidden_layers"),
    ("ar", "extraction_layer_index"),
    ("ar", "num_hidden_layers"),
)
_PLACEHOLDERS: dict[Role, str] = {"av": "{injection_char}", "ar": "{explanation}"}
_LONGEST_TEMPLATE, _LONGEST_NAME, _LONGEST_CHAR, _LONGEST_SUFFIX = 20_000, 500, 64, 256
"""Characters of a template, a name and the marker; tokens of the AR's suffix."""
_WIDEST, _DEEPEST, _LARGEST_ID = 1_000_000, 10_000, 2**31 - 1
_MAX_CONFIG_BYTES = 1_000_000


@dataclass(frozen=True)
class Marker:
    """The token whose embedding the vector replaces; it counts only between its two neighbours."""

    char: str
    token_id: int
    left_id: int
    right_id: int

    def positions(self, ids: Sequence[int]) -> list[int]:
        """Return the positions in a prompt at which a vector is injected."""
        inner = range(1, len(ids) - 1)
        return [i for i in inner if (ids[i - 1], ids[i], ids[i + 1]) == (self.left_id, self.token_id, self.right_id)]


@dataclass(frozen=True)
class Sidecar:
    """The content of the `nla_meta.yaml` of an AV or AR.

    `layer` is K (0-based block whose output is read). Scales are L2 norms; None means that vectors are used as they are.
    """

    role: Role
    d_model: int
    layer: int
    base_checkpoint: str
    template: str
    marker: Marker | None
    injection_scale: float | None
    mse_scale: float | None
    injection_mode: InjectionMode = "replace"
    """`replace`: the vector, brought to `injection_scale`, takes the place of the marker's embedding. `add_norm_matched`: it is added to
    the residual stream after block `injection_block`, with the norm of the stream there (pairs of the nanoNLA kind)."""
    injection_block: int = 0
    """0-based; only `add_norm_matched` uses it."""
    suffix_ids: tuple[int, ...] = ()
    stage: str = ""
    harness: dict[str, Any] = field(default_factory=dict)
    """Fields of this project, under one key so that other readers ignore them."""

    @property
    def temperature(self) -> float:
        """The temperature at which the pair's AV is sampled by default; released AVs were trained to be sampled at 1."""
        return number(self.harness.get("temperature", 1.0), "harness.temperature", 0, 100)

    @property
    def max_tokens(self) -> int:
        """The longest explanation, in tokens."""
        return integer(self.harness.get("max_tokens", MAX_TOKENS), "harness.max_tokens", 1, 100_000)

    @property
    def lines_without_repeats(self) -> int:
        """The number of an explanation's first lines in which no word and no candidate may come twice."""
        return integer(self.harness.get("lines_without_repeats", 0), "harness.lines_without_repeats", 0, 1_000)


def read_sidecar(folder: Path) -> Sidecar:
    """Read the sidecar of a checkpoint folder.

    Raises:
        ContractError: it is missing or unparsable, is of another kind, lacks a field, or has a field that cannot be right.
    """
    path = folder / SIDECAR
    try:
        meta = read_yaml(path)
    except FileNotFoundError:
        raise ContractError(f"{folder} has no {SIDECAR}, so it is not a checkpoint of an NLA; give the AV's or AR's own folder.") from None
    except ValueError as ex:
        raise ContractError(f"{path} cannot be read: {ex}") from ex
    if not isinstance(meta, dict) or meta.get("kind") != "nla_model":
        kind = shown(meta.get("kind")) if isinstance(meta, dict) else f"'{type(meta).__name__}'"
        raise ContractError(f"{path} has kind {kind}; expected 'nla_model'. The sidecar of a data set does not describe a checkpoint.")
    try:
        return _parse(meta, path.parent)
    except KeyError as ex:
        raise ContractError(f"{path} lacks {ex.args[0]}, without which the checkpoint cannot be fed as it was trained.") from None
    except ValueError as ex:
        raise ContractError(f"{path} has a field of the wrong form: {ex}") from ex


def _parse(meta: dict[str, Any], folder: Path) -> Sidecar:
    role = _ROLE_NAMES.get(text(meta["role"], "role", _LONGEST_NAME))
    if role is None:
        raise ValueError(f"role is {shown(meta['role'])}; expected one of {', '.join(_ROLE_NAMES)}")
    d_model = integer(meta["d_model"], "d_model", 1, _WIDEST)
    extraction, tokens = section(meta, "extraction"), section(meta, "tokens")
    marker = _marker(tokens) if tokens.get("injection_token_id") is not None else None
    if role == "av" and marker is None:
        raise KeyError("tokens.injection_token_id")
    mode, block = _injection(extraction)
    if role == "av" and mode == "replace" and "injection_scale" not in extraction:
        raise KeyError("extraction.injection_scale")
    sidecar = Sidecar(
        role=role,
        d_model=d_model,
        layer=_layer(meta, role, folder),
        base_checkpoint=text(meta.get("base_checkpoint") or "", "base_checkpoint", _LONGEST_NAME),
        template=_template(section(meta, "prompt_templates"), role),
        marker=marker,
        injection_scale=resolve_scale(extraction.get("injection_scale"), d_model),
        mse_scale=resolve_scale(extraction.get("mse_scale", SQRT_D_MODEL), d_model),
        injection_mode=mode,
        injection_block=block,
        suffix_ids=_suffix(tokens.get("critic_suffix_ids")),
        stage=text(meta.get("stage") or "", "stage", _LONGEST_NAME),
        harness=section(meta, "harness"),
    )
    assert sidecar.temperature >= 0  # raises where the field cannot be right
    assert sidecar.max_tokens > 0
    assert sidecar.lines_without_repeats >= 0
    return sidecar


def _injection(extraction: dict[str, Any]) -> tuple[InjectionMode, int]:
    """Return the injection mode and its block; a sidecar that names no mode means `replace`."""
    name = text(extraction.get("injection_mode") or "replace", "extraction.injection_mode", _LONGEST_NAME)
    mode = _MODES.get(name)
    if mode is None:
        raise ValueError(f"extraction.injection_mode is {shown(name)}; expected one of {', '.join(_MODES)}")
    if mode == "replace":
        return mode, 0
    if extraction.get("injection_block") is None:
        raise KeyError("extraction.injection_block")
    return mode, integer(extraction["injection_block"], "extraction.injection_block", 0, _DEEPEST)


def _template(templates: dict[str, Any], role: Role) -> str:
    """Return the template of a role; it holds no placeholder but the role's own, as nothing else could be filled in."""
    name = next((name for name, meant in _ROLE_NAMES.items() if meant == role and name in templates), None)
    if name is None:
        raise KeyError("prompt_templates for its role")
    template = text(templates[name], f"prompt_templates.{name}", _LONGEST_TEMPLATE)
    placeholder = _PLACEHOLDERS[role]
    others = [other for other in re.findall(r"\{\{|\}\}|\{[^{}]*\}", template) if other not in ("{{", "}}", placeholder)]
    if role == "av" and others:
        raise ValueError(f"prompt_templates.{name} has the placeholder {shown(others[0])}; expected {placeholder} only")
    if role == "ar" and placeholder not in template:
        raise ValueError(f"prompt_templates.{name} has no {placeholder}, so every explanation would be read alike")
    return template


def _suffix(ids: object) -> tuple[int, ...]:
    if ids is None:
        return ()
    if not isinstance(ids, list) or len(ids) > _LONGEST_SUFFIX:
        raise ValueError(f"tokens.critic_suffix_ids is {shown(ids)}; expected a list of at most {_LONGEST_SUFFIX} token ids")
    return tuple(integer(i, "tokens.critic_suffix_ids", 0, _LARGEST_ID) for i in ids)


def _marker(tokens: dict[str, Any]) -> Marker:
    char = text(tokens["injection_char"], "tokens.injection_char", _LONGEST_CHAR)
    names = ("injection_token_id", "injection_left_neighbor_id", "injection_right_neighbor_id")
    return Marker(char, *(integer(tokens[name], f"tokens.{name}", 0, _LARGEST_ID) for name in names))


def _layer(meta: dict[str, Any], role: Role, folder: Path) -> int:
    if meta.get("extraction_layer_index") is not None:
        return integer(meta["extraction_layer_index"], "extraction_layer_index", 0, _DEEPEST)
    for name, key in _LAYER_KEYS:
        value = section(meta, name).get(key)
        if value is not None:
            return integer(value, f"{name}.{key}", 0, _DEEPEST)  # num_hidden_layers holds K here, not K + 1
    if role == "ar" and (folder / "config.json").is_file():
        return integer(_depth(folder / "config.json"), "num_hidden_layers of config.json", 1, _DEEPEST) - 1
    raise KeyError("extraction_layer_index")


def _depth(path: Path) -> object:
    try:
        with path.open(encoding="utf-8") as file:
            config = json.loads(file.read(_MAX_CONFIG_BYTES))
    except (OSError, ValueError, RecursionError) as ex:
        raise ValueError(f"config.json cannot be read ({type(ex).__name__})") from ex
    return config.get("num_hidden_layers") if isinstance(config, dict) else None


def write_sidecar(folder: Path, sidecar: Sidecar) -> None:
    """Write a sidecar of schema version 2, with the spellings `av` and `ar`; the file appears whole.

    Raises:
        DataError: the folder cannot be written.
    """
    marker = sidecar.marker
    tokens = {
        "injection_char": marker.char if marker else None,
        "injection_token_id": marker.token_id if marker else None,
        "injection_left_neighbor_id": marker.left_id if marker else None,
        "injection_right_neighbor_id": marker.right_id if marker else None,
        "critic_suffix_ids": list(sidecar.suffix_ids) or None,
    }
    meta = {
        "kind": "nla_model",
        "schema_version": SCHEMA_VERSION,
        "role": sidecar.role,
        "stage": sidecar.stage,
        "d_model": sidecar.d_model,
        "base_checkpoint": sidecar.base_checkpoint,
        "extraction_layer_index": sidecar.layer,
        "extraction": {"injection_scale": sidecar.injection_scale, "mse_scale": sidecar.mse_scale} | _mode_fields(sidecar),
        "tokens": tokens,
        "prompt_templates": {sidecar.role: sidecar.template},
    } | ({"harness": sidecar.harness} if sidecar.harness else {})
    with replacing(folder / SIDECAR) as scratch:
        scratch.write_text(yaml.safe_dump(meta, allow_unicode=True, sort_keys=False), encoding="utf-8")


def _mode_fields(sidecar: Sidecar) -> dict[str, object]:
    """Return the fields of an injection mode that other readers do not expect; none for `replace`."""
    if sidecar.injection_mode == "replace":
        return {}
    return {"injection_mode": sidecar.injection_mode, "injection_block": sidecar.injection_block}


def require_replacing(sidecar: Sidecar, what: str) -> None:
    """Refuse an AV whose vectors are added after a block.

    Args:
        sidecar: the AV's contract.
        what: what only replaces embeddings, for the message.

    Raises:
        ContractError: its injection mode is not `replace`.
    """
    if sidecar.injection_mode != "replace":
        raise ContractError(
            f"{what} replaces the marker's embedding, but the AV has injection_mode {sidecar.injection_mode}; use the verbalizer `av`."
        )


def scaled(vectors: Float[Tensor, "n d_model"], scale: float | None) -> Float[Tensor, "n d_model"]:
    """Return vectors brought to L2 norm `scale` (norm and result in float32), or unchanged where it is None. Zero vectors stay zero."""
    if scale is None:
        return vectors
    return torch.nn.functional.normalize(vectors.float(), dim=-1, eps=1e-12) * scale


def av_prompt_ids(tokenizer: PreTrainedTokenizerBase, sidecar: Sidecar) -> list[int]:
    """Return the token ids of the AV's prompt: one user message through the chat template, which writes any BOS itself."""
    assert sidecar.marker is not None
    content = _filled(sidecar.template, sidecar.marker.char)
    return encode(tokenizer, render(tokenizer, [{"role": "user", "content": content}], [], add_generation_prompt=True))


def _filled(template: str, char: str) -> str:
    """Put the marker into a template. Doubled braces mean single ones, as in the reference, which uses `str.format`.

    `str.format` itself is never used: a template of unknown origin could ask it for any attribute, or for a gigabyte of padding.
    """
    values = {"{{": "{", "}}": "}", _PLACEHOLDERS["av"]: char}
    return re.sub("|".join(map(re.escape, values)), lambda match: values[match.group()], template)


def ar_prompt_ids(tokenizer: PreTrainedTokenizerBase, sidecar: Sidecar, explanation: str) -> list[int]:
    """Return the token ids of the AR's prompt for an explanation: plain text, with BOS where the tokenizer adds one.

    Explanations are written by models, so what looks like a control token in them is encoded as plain text.
    """
    parts = sidecar.template.split(_PLACEHOLDERS["ar"])
    pieces = [piece for part in parts for piece in (Piece(explanation, untrusted=True), Piece(part))][1:]
    text = "".join(piece.text for piece in pieces)
    plain, whole, safe = encode(tokenizer, text), list(tokenizer.encode(text)), encode_pieces(tokenizer, pieces).ids
    if safe == plain:
        return whole
    added = next(n for n in range(len(whole) + 1) if whole[n : n + len(plain)] == plain)
    return [*whole[:added], *safe, *whole[added + len(plain) :]]


def check_sidecar(sidecar: Sidecar, model: LoadedModel) -> None:
    """Compare a sidecar with the live base model and its tokenizer.

    Raises:
        ContractError: width, layer, base model, marker, its neighbours or the AR's suffix differ. A pair that does not fit would
            give fluent and meaningless text.
    """
    name, who = model.source.name, f"the {sidecar.role.upper()}"
    if sidecar.d_model != model.d_model:
        raise ContractError(f"{who} reads vectors of width {sidecar.d_model}, but {name} has {model.d_model}: a pair of another model.")
    if not 0 <= sidecar.layer < model.n_layers:
        raise ContractError(f"{who} reads block {sidecar.layer}, but {name} has blocks 0 to {model.n_layers - 1}: a pair of another model.")
    if sidecar.base_checkpoint and not model.source.is_local and sidecar.base_checkpoint != model.source.location:
        raise ContractError(f"{who} belongs to {sidecar.base_checkpoint}, but the model is {model.source.location}.")
    if not 0 <= sidecar.injection_block < model.n_layers:
        raise ContractError(f"{who} injects after block {sidecar.injection_block}, but {name} has blocks 0 to {model.n_layers - 1}.")
    if sidecar.role == "av":
        _check_marker(sidecar, model.tokenizer, name)
        return
    ending = ar_prompt_ids(model.tokenizer, sidecar, "text")[-len(sidecar.suffix_ids) :] if sidecar.suffix_ids else []
    if tuple(ending) != sidecar.suffix_ids:
        raise ContractError(
            f"the AR's prompt ends in tokens {ending}, expected {list(sidecar.suffix_ids)}; {name} has another tokenizer than the AR."
        )


def _check_marker(sidecar: Sidecar, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    marker = sidecar.marker
    assert marker is not None
    ids = encode(tokenizer, marker.char)
    if ids[-1:] != [marker.token_id]:
        raise ContractError(
            f"the marker {shown(marker.char)} is token {ids[:5]} in {name}'s tokenizer, expected [{marker.token_id}]; "
            "it is another tokenizer, or another version of it."
        )
    prompt = av_prompt_ids(tokenizer, sidecar)
    if len(marker.positions(prompt)) != 1:
        at = [i for i, token in enumerate(prompt) if token == marker.token_id]
        around = [(prompt[i - 1], prompt[i + 1]) for i in at if 0 < i < len(prompt) - 1]
        raise ContractError(
            f"the marker appears {len(at)} times in the AV's prompt, with neighbours {around[:5]}; expected once, between "
            f"{marker.left_id} and {marker.right_id}. The chat template or tokenizer of {name} is not the one the AV was trained with."
        )
