"""Pairs of AV and AR that are known by their base model, and where their files are: the released ones, and our own shipped one."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import snapshot_download

from nla.models.adapters import CONFIG_FILE, WEIGHTS_FILE
from nla.models.embedded import HUB_ID
from nla.models.loaded import LoadedModel, load_model
from nla.models.sources import ALIASES
from nla.pair.contract import Role, Sidecar
from nla.support.errors import ConfigError, FetchError
from nla.support.paths import user_path

SHIPPED = Path(__file__).parents[1] / "pairs"
"""Where the weights of the pairs that ship with the project lie."""


@dataclass(frozen=True)
class KnownPair:
    """A pair: K, the norm its AV expects, and hub ids or folders of AV and AR. The loaded sidecars decide; this is for look-up."""

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


def hub_id(model: LoadedModel) -> str:
    """The hub id of a model that was given by alias or hub id; its location otherwise."""
    alias = ALIASES.get(model.source.name)
    return alias.hub_id if alias else model.source.location


def default_pair(model: LoadedModel) -> KnownPair:
    """The pair known for a model.

    Raises:
        ConfigError: there is none.
    """
    found = KNOWN.get(hub_id(model))
    if found is None:
        raise ConfigError(
            f"no NLA is known for {model.source.name} (known: {', '.join(KNOWN)}); "
            "give its folder or hub id with -T nla=…, or take an untrained baseline (-T verbalizer=logit_lens)."
        )
    return found


def known_pair(alias: str) -> KnownPair | None:
    """The pair known for a model's alias; None where there is none, or where it is no alias."""
    return KNOWN.get(ALIASES[alias].hub_id) if alias in ALIASES else None


def role_folder(where: str, role: Role) -> Path:
    """The local folder of an AV or AR: that folder, the `av` or `ar` inside a pair's folder, an alias' known pair, or the hub's copy.

    Raises:
        ConfigError: an alias without a known pair.
        FetchError: the hub could not give it.
    """
    if where in ALIASES:
        known = known_pair(where)
        if known is None:
            raise ConfigError(f"no NLA is known for {where}; give its folder or hub id.")
        where = known.av if role == "av" else known.ar
    path = user_path(where)
    if path.is_dir():
        return path / role if (path / role).is_dir() else path
    try:
        return Path(snapshot_download(where, ignore_patterns=["original/*", "*.pth", "*.bin"]))
    except (OSError, ValueError) as ex:
        raise FetchError(
            f"{where} is no folder, and the hub could not give it: {str(ex).splitlines()[0]} Give the checkpoint's folder."
        ) from ex


def pair_label(av: str) -> str:
    """The name of a known pair in logs and tables: its hub id, or its folder's name with the first digits of its AV's hash.

    The shipped pair is trained on from time to time under the same name, and what two of them read must not be pooled.
    """
    weights = user_path(av) / WEIGHTS_FILE
    if not weights.is_file():
        return av
    with weights.open("rb") as file:
        return f"{user_path(av).parent.name}@{hashlib.file_digest(file, 'sha256').hexdigest()[:8]}"


def local_folder(where: str) -> Path | None:
    """The folder that holds a pair's two roles, for its alias, its own folder or its AV's; None where it is not on this machine."""
    known = known_pair(where)
    path = user_path(known.av if known else where)
    if not path.is_dir():
        return None
    return path if (path / "av").is_dir() else path.parent


def ar_beside(av: str) -> str | None:
    """Where the AR that belongs to an AV is, as far as folders tell: in the same pair's folder, or beside the AV's own.

    None for a hub id, whose AR is a checkpoint of its own that has to be named.
    """
    if av in ALIASES:
        known = known_pair(av)
        return known.ar if known else None
    path = user_path(av)
    found = next((folder for folder in (path / "ar", path.parent / "ar") if folder.is_dir()), None)
    return str(found) if found else None


def is_adapter(where: str) -> bool:
    """Whether a role's local folder holds an adapter of the base model, not a checkpoint of its own."""
    return (user_path(where) / CONFIG_FILE).is_file()


def base_model(sidecar: Sidecar, *, dtype: str = "auto", device: str = "auto") -> LoadedModel:
    """The base model a sidecar names, by its alias where it has one.

    Raises:
        ModelError, FetchError: see `load_model`.
    """
    alias = next((name for name, one in ALIASES.items() if one.hub_id == sidecar.base_checkpoint), sidecar.base_checkpoint)
    return load_model(alias, dtype=dtype, device=device)
