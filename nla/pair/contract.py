"""The pair's contract: the sidecar `nla_meta.yaml` that says how an AV or AR is to be fed, read, checked and written.

Compatible with the public reference (kitft/natural_language_autoencoders) in all spellings of its schema versions 1 and 2. No
scale, marker or template of a pair is typed anywhere else in the harness: they come from here.
"""

import math
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
from nla.models.loaded import LoadedModel
from nla.support.errors import ContractError
from nla.support.files import replacing

SIDECAR = "nla_meta.yaml"
SCHEMA_VERSION = 2
SQRT_D_MODEL = "sqrt_d_model"
Role = Literal["av", "ar"]
_ROLES: dict[str, Role] = {"av": "av", "actor": "av", "ar": "ar", "critic": "ar"}
_LAYER_KEYS = (
    ("critic", "extraction_layer_index"),
    ("critic", "num_hidden_layers"),
    ("ar", "extraction_layer_index"),
    ("ar", "num_hidden_layers"),
)


@dataclass(frozen=True)
class Marker:
    """The token whose embedding the vector replaces; it counts only between its two neighbours."""

    char: str
    token_id: int
    left_id: int
    right_id: int

    def positions(self, ids: Sequence[int]) -> list[int]:
        """Positions in a prompt at which a vector goes."""
        inner = range(1, len(ids) - 1)
        return [i for i in inner if (ids[i - 1], ids[i], ids[i + 1]) == (self.left_id, self.token_id, self.right_id)]


@dataclass(frozen=True)
class Sidecar:
    """What `nla_meta.yaml` of an AV or AR says.

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
    suffix_ids: tuple[int, ...] = ()
    stage: str = ""
    harness: dict[str, Any] = field(default_factory=dict)
    """Fields of ours, under one key of their own so that other readers ignore them."""


def read_sidecar(folder: Path) -> Sidecar:
    """The sidecar of a checkpoint folder.

    Raises:
        ContractError: missing, unparsable, of another kind, or without a field it needs.
    """
    path = folder / SIDECAR
    try:
        meta = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ContractError(f"{folder} has no {SIDECAR}, so it is not a checkpoint of an NLA; give the AV's or AR's own folder.") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as ex:
        raise ContractError(f"{path} cannot be read: {str(ex).splitlines()[0]}") from ex
    if not isinstance(meta, dict) or meta.get("kind") != "nla_model":
        found = meta.get("kind") if isinstance(meta, dict) else type(meta).__name__
        raise ContractError(f"{path} has kind {found!r}; expected 'nla_model'. A data set's sidecar is no checkpoint's.")
    return _parse(meta, path)


def _parse(meta: dict[str, Any], path: Path) -> Sidecar:
    try:
        role = _ROLES[str(meta["role"])]
        d_model = int(meta["d_model"])
        templates = meta["prompt_templates"]
        template = next(str(templates[name]) for name, meant in _ROLES.items() if meant == role and name in templates)
        extraction = meta.get("extraction") or {}
        tokens = meta.get("tokens") or {}
        marker = _marker(tokens) if tokens.get("injection_token_id") is not None else None
        if role == "av" and marker is None:
            raise KeyError("tokens.injection_token_id")
        if role == "av" and "injection_scale" not in extraction:
            raise KeyError("extraction.injection_scale")
        return Sidecar(
            role=role,
            d_model=d_model,
            layer=_layer(meta, role, path.parent),
            base_checkpoint=str(meta.get("base_checkpoint") or ""),
            template=template,
            marker=marker,
            injection_scale=resolve_scale(extraction.get("injection_scale"), d_model),
            mse_scale=resolve_scale(extraction.get("mse_scale", SQRT_D_MODEL), d_model),
            suffix_ids=tuple(int(i) for i in tokens.get("critic_suffix_ids") or ()),
            stage=str(meta.get("stage") or ""),
            harness=dict(meta.get("harness") or {}),
        )
    except (KeyError, StopIteration) as ex:
        missing = ex.args[0] if ex.args else "prompt_templates for its role"
        raise ContractError(f"{path} lacks {missing}, without which the checkpoint cannot be fed as it was trained.") from None
    except (TypeError, ValueError, AttributeError) as ex:
        raise ContractError(f"{path} has a field of the wrong form: {ex}") from ex


def _marker(tokens: dict[str, Any]) -> Marker:
    names = ("injection_token_id", "injection_left_neighbor_id", "injection_right_neighbor_id")
    return Marker(str(tokens["injection_char"]), *(int(tokens[name]) for name in names))


def _layer(meta: dict[str, Any], role: Role, folder: Path) -> int:
    if meta.get("extraction_layer_index") is not None:
        return int(meta["extraction_layer_index"])
    for section, key in _LAYER_KEYS:
        value = (meta.get(section) or {}).get(key)
        if value is not None:
            return int(value)  # num_hidden_layers holds K here, not K + 1
    config = folder / "config.json"
    if role == "ar" and config.is_file():
        return int(yaml.safe_load(config.read_text())["num_hidden_layers"]) - 1
    raise KeyError("extraction_layer_index")


def resolve_scale(value: object, d_model: int) -> float | None:
    """A scale as a number: None, `raw` and `none` mean no scaling, `sqrt_d_model` is the root of the width.

    Raises:
        ValueError: it is none of these and no positive number.
    """
    if value is None or value in ("raw", "none"):
        return None
    if value == SQRT_D_MODEL:
        return math.sqrt(d_model)
    number = float(value)  # type: ignore[arg-type]
    if not math.isfinite(number) or number <= 0:
        raise ValueError(f"scale {value!r} is not a positive number")
    return number


def write_sidecar(folder: Path, sidecar: Sidecar) -> None:
    """Write a sidecar of schema version 2, with the spellings `av` and `ar` (atomically)."""
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
        "extraction": {"injection_scale": sidecar.injection_scale, "mse_scale": sidecar.mse_scale},
        "tokens": tokens,
        "prompt_templates": {sidecar.role: sidecar.template},
    } | ({"harness": sidecar.harness} if sidecar.harness else {})
    with replacing(folder / SIDECAR) as scratch:
        scratch.write_text(yaml.safe_dump(meta, allow_unicode=True, sort_keys=False), encoding="utf-8")


def scaled(vectors: Float[Tensor, "n d_model"], scale: float | None) -> Float[Tensor, "n d_model"]:
    """Vectors brought to L2 norm `scale` (norm and result in float32); unchanged where it is None. Zero vectors stay zero."""
    if scale is None:
        return vectors
    return torch.nn.functional.normalize(vectors.float(), dim=-1, eps=1e-12) * scale


def av_prompt_ids(tokenizer: PreTrainedTokenizerBase, sidecar: Sidecar) -> list[int]:
    """Token ids of the AV's prompt: one user message through the chat template, which writes any BOS itself."""
    assert sidecar.marker is not None
    content = sidecar.template.format(injection_char=sidecar.marker.char)
    return encode(tokenizer, render(tokenizer, [{"role": "user", "content": content}], [], add_generation_prompt=True))


def ar_prompt_ids(tokenizer: PreTrainedTokenizerBase, sidecar: Sidecar, explanation: str) -> list[int]:
    """Token ids of the AR's prompt for an explanation: plain text, with BOS where the tokenizer adds one."""
    return list(tokenizer.encode(sidecar.template.replace("{explanation}", explanation)))


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
            f"the marker {marker.char!r} is token {ids} in {name}'s tokenizer, expected [{marker.token_id}]; "
            "it is another tokenizer, or another version of it."
        )
    prompt = av_prompt_ids(tokenizer, sidecar)
    if len(marker.positions(prompt)) != 1:
        at = [i for i, token in enumerate(prompt) if token == marker.token_id]
        around = [(prompt[i - 1], prompt[i + 1]) for i in at if 0 < i < len(prompt) - 1]
        raise ContractError(
            f"the marker stands {len(at)} times in the AV's prompt, with neighbours {around}; expected once, between "
            f"{marker.left_id} and {marker.right_id}. The chat template or tokenizer of {name} is not the one the AV was trained with."
        )
