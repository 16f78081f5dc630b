"""Known pairs of AV and AR, by their base model, and the place of their files: the released pairs and the one shipped with the project."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import snapshot_download

from nla.models.adapters import CONFIG_FILE, WEIGHTS_FILE
from nla.models.embedded import HUB_ID
from nla.models.loaded import LoadedModel, load_model
from nla.models.sources import ALIASES, hub_id_of
from nla.pair.contract import Role, Sidecar, read_sidecar
from nla.support.display import visible
from nla.support.errors import ConfigError, ContractError, FetchError, first_line, near_name
from nla.support.paths import user_path

SHIPPED = Path(__file__).parents[1] / "pairs"
"""Folder with the weights of the pairs that ship with the project."""


@dataclass(frozen=True)
class KnownPair:
    """A pair: K, the norm its AV expects, and hub ids or folders of AV and AR. The loaded sidecars are what counts; this is for look-up."""

    layer: int
    injection_scale: float
    av: str
    ar: str


KNOWN: dict[str, KnownPair] = {
    "Qwen/Qwen2.5-7B-Instruct": KnownPair(20, 150, "kitft/nla-qwen2.5-7b-L20-av", "kitft/nla-qwen2.5-7b-L20-ar"),
    "google/gemma-3-12b-it": KnownPair(32, 80_000, "kitft/nla-gemma3-12b-L32-av", "kitft/nla-gemma3-12b-L32-ar"),
    "google/gemma-3-27b-it": KnownPair(41, 60_000, "kitft/nla-gemma3-27b-L41-av", "kitft/nla-gemma3-27b-L41-ar"),
    "meta-llama/Llama-3.3-70B-Instruct": KnownPair(53, 30, "kitft/Llama-3.3-70B-NLA-L53-av", "kitft/Llama-3.3-70B-NLA-L53-ar"),
    HUB_ID: KnownPair(20, 240, str(SHIPPED / "smollm2-135m-L20" / "av"), str(SHIPPED / "smollm2-135m-L20" / "ar")),
}
"""By the base model's hub id."""
_HUB_ID = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)
_FILES = ["*.json", "*.safetensors", "*.yaml", "*.jinja", "*.model", "*.txt"]
"""What a checkpoint may consist of: never pickled weights."""


def hub_id(model: LoadedModel) -> str:
    """Return the hub id of a model that was given by alias or hub id; its location otherwise."""
    return hub_id_of(model.source)


def default_pair(model: LoadedModel) -> KnownPair:
    """Return the pair known for a model.

    Raises:
        ConfigError: no pair is known for it.
    """
    pair = KNOWN.get(hub_id(model))
    if pair is None:
        raise ConfigError(
            f"no NLA is known for {model.source.name} (known: {', '.join(KNOWN)}); "
            "give its folder or hub id with -T nla=…, or take an untrained baseline (-T verbalizer=logit_lens)."
        )
    return pair


def layer_of_pair(model: LoadedModel, where: str | None) -> int:
    """Return K, the block that a pair reads, without loading its weights.

    Args:
        model: the model that is read.
        where: the pair (alias, folder or hub id); None takes the one known for the model.

    Raises:
        ConfigError: no pair is known for the model, or there is no such pair.
        ContractError: the pair's sidecar cannot be read.
        FetchError: the hub could not provide it.
    """
    known = default_pair(model) if where is None else None
    if known is not None and local_folder(known.av) is None:
        return known.layer
    return read_sidecar(role_folder(known.av if known else str(where), "av")).layer


def known_pair(alias: str) -> KnownPair | None:
    """Return the pair known for a model's alias; None if no pair is known, or if it is not an alias."""
    return KNOWN.get(ALIASES[alias].hub_id) if alias in ALIASES else None


def role_folder(where: str | Path, role: Role) -> Path:
    """Return the local folder of an AV or AR, fetching it from the hub where needed.

    Args:
        where: the role's own folder, the pair's folder with `av` and `ar` inside, the alias of a model with a known pair, or a hub id.
        role: which of the two.

    Raises:
        ConfigError: it is none of these, or no pair is known for the alias.
        FetchError: the hub could not provide it.
    """
    if not isinstance(where, str | Path) or not str(where):
        raise ConfigError(f"{visible(repr(where), limit=80)} does not name a pair; expected an alias, a folder or a hub id, as text.")
    where = str(where)
    if where in ALIASES:
        known = known_pair(where)
        if known is None:
            raise ConfigError(f"no NLA is known for {where}; give its folder or hub id.")
        where = known.av if role == "av" else known.ar
    path = user_path(where)
    if path.is_dir():
        return path / role if (path / role).is_dir() else path
    if not _HUB_ID.fullmatch(where):
        aliases = [alias for alias in ALIASES if known_pair(alias)]
        raise ConfigError(
            f"no pair named '{visible(where, limit=80)}': it is neither an alias of a model with a pair ({', '.join(aliases)}), "
            f"nor a folder, nor a hub id like {KNOWN['Qwen/Qwen2.5-7B-Instruct'].av}.{near_name(where, aliases)}"
        )
    try:
        return Path(snapshot_download(where, allow_patterns=_FILES))
    except (OSError, ValueError) as ex:
        raise FetchError(
            f"{where} is no folder, and the hub could not provide it: {first_line(ex)} Give the checkpoint's folder instead."
        ) from ex


def pair_label(av: str) -> str:
    """Return the name of a known pair in logs and tables: its hub id, or its folder's name with the first digits of its AV's hash.

    The shipped pair is trained further from time to time under the same name, and readings of two versions must not be pooled.
    """
    weights = user_path(av) / WEIGHTS_FILE
    if not weights.is_file():
        return av
    with weights.open("rb") as file:
        return f"{user_path(av).parent.name}@{hashlib.file_digest(file, 'sha256').hexdigest()[:8]}"


def local_folder(where: str) -> Path | None:
    """Return the folder that holds both roles of a pair, given its alias, its folder or its AV's; None if it is not on this machine."""
    known = known_pair(where)
    path = user_path(known.av if known else where)
    if not path.is_dir():
        return None
    return path if (path / "av").is_dir() else path.parent


def ar_beside(av: str) -> str | None:
    """Return where the AR that belongs to an AV is, as far as folders show: inside the pair's folder, or beside the AV's folder.

    None for a hub id: its AR is a separate checkpoint, which has to be named.
    """
    if av in ALIASES:
        known = known_pair(av)
        return known.ar if known else None
    path = user_path(av)
    beside = next((folder for folder in (path / "ar", path.parent / "ar") if folder.is_dir()), None)
    return str(beside) if beside else None


def is_adapter(where: str) -> bool:
    """Return whether a role's local folder holds an adapter of the base model, and not a full checkpoint."""
    return (user_path(where) / CONFIG_FILE).is_file()


def base_model(sidecar: Sidecar, *, dtype: str = "auto", device: str = "auto") -> LoadedModel:
    """Load the base model that a sidecar names, by its alias if it has one.

    Raises:
        ContractError: the sidecar names none.
        ModelError, FetchError: see `load_model`.
    """
    if not sidecar.base_checkpoint:
        raise ContractError(f"the sidecar of the {sidecar.role.upper()} names no base_checkpoint, so its base model cannot be loaded.")
    name = next((alias for alias, model in ALIASES.items() if model.hub_id == sidecar.base_checkpoint), sidecar.base_checkpoint)
    return load_model(name, dtype=dtype, device=device)
