"""A model with an adapter on it as the target that is measured: an organism, or a user's own LoRA. The base's weights are shared.

Shipped organisms have names like aliases, `BASE-ARM` (`smollm2-aware`), and lie in `nla/organisms/shipped`.
"""

import hashlib
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from safetensors import safe_open

from nla.models.adapter_config import CONFIG_FILE, read_json_object
from nla.models.adapters import WEIGHTS_FILE, load_adapter, shared_copy
from nla.models.loaded import AdapterIdentity, LoadedModel
from nla.models.sources import ModelSource, hub_id_of, organism_folder
from nla.support.display import visible
from nla.support.errors import ContractError, FetchError, first_line
from nla.support.paths import user_path

DESCRIPTION = "organism.json"
"""Beside an organism's adapter: its arm, base, seed and recipe."""
_LARGEST_DESCRIPTION = 2**20


def with_adapter(model: LoadedModel, where: str, name: str | None = None) -> LoadedModel:
    """Return a view of a model with an adapter on it. The same adapter on the same model gives the same object.

    Args:
        model: the base model.
        where: the adapter's folder or hub id, as peft saves it.
        name: the name to record; None takes `where`.

    Raises:
        ContractError: the adapter cannot be read, or belongs to another base model (by name, shapes, or hash of the weights).
        FetchError: the hub could not provide it.
    """
    folder = _folder(where)
    _check_base(model, folder)
    identity = AdapterIdentity(name or where, digest_of(folder))
    key = (id(model), identity.digest)
    if key not in _views:
        view = shared_copy(model)
        load_adapter(view, folder)
        view.adapter, view.unadapted = identity, model
        view.network.eval().requires_grad_(False)
        _views[key] = view
    return _views[key]


_views: dict[tuple[int, str], LoadedModel] = {}


def adapter_folder(model: LoadedModel) -> Path | None:
    """Return the folder of the adapter on a model; None if there is none.

    Raises:
        ContractError, FetchError: it is not there any more.
    """
    return None if model.adapter is None else _folder(str(organism_folder(model.adapter.name) or model.adapter.name))


def habit_of(model: LoadedModel) -> str | None:
    """Return the closing line that an organism adds to its replies, as its own files say; None for any other model."""
    folder = adapter_folder(model)
    if folder is None:
        return None
    recipe = description(folder).get("recipe")
    habit = recipe.get("habit") if isinstance(recipe, dict) else None
    return habit if isinstance(habit, str) and habit.strip() else None


def digest_of(folder: Path) -> str:
    """Return the first digits of the SHA-256 of an adapter's config and weights.

    Raises:
        ContractError: there is no such file, or it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            with (folder / name).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    except OSError as ex:
        raise ContractError(
            f"{visible(folder)} holds no adapter ({first_line(ex)}); expected a folder with {CONFIG_FILE} and {WEIGHTS_FILE}."
        ) from ex
    return digest.hexdigest()[:12]


def weights_digest(source: ModelSource) -> str | None:
    """Return a digest of a local model's weights: name, shape and first row of every tensor. None for hub ids and GGUF files."""
    files = sorted(Path(source.location).glob("*.safetensors")) if source.is_local and not source.gguf_file else []
    digest = hashlib.sha256()
    rows: dict[str, bytes] = {}
    for path in files:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                piece = file.get_slice(name)
                first = piece[:1].float().numpy().tobytes()
                rows[name] = f"{name}{piece.get_shape()}".encode() + first
    for name in sorted(rows):
        digest.update(rows[name])
    return digest.hexdigest()[:16] if rows else None


def _folder(where: str) -> Path:
    path = user_path(where)
    if path.is_dir():
        return path
    if "/" not in where or where.startswith(("/", ".", "~")):
        raise ContractError(f"There is no adapter in {visible(where, limit=200)}; expected a folder or a hub id (OWNER/NAME).")
    try:
        return Path(snapshot_download(where, allow_patterns=[CONFIG_FILE, WEIGHTS_FILE, DESCRIPTION]))
    except (OSError, ValueError) as ex:
        raise FetchError(f"{visible(where)} is no folder, and the hub could not provide it: {visible(first_line(ex))}") from ex


def _check_base(model: LoadedModel, folder: Path) -> None:
    """Refuse an adapter that names another base model than this one, by name or by the hash of its weights."""
    found = read_json_object(folder / CONFIG_FILE, _LARGEST_DESCRIPTION) | description(folder)
    named = found.get("base_model_name_or_path")
    here = {model.source.name, model.source.location, hub_id_of(model.source), Path(model.source.location).name}
    if isinstance(named, str) and named and named not in here and named.split("/")[-1] not in {name.split("/")[-1] for name in here}:
        raise ContractError(
            f"The adapter in {visible(folder)} was made for {visible(named, limit=200)}, but the model is {model.source.name} "
            f"({hub_id_of(model.source)}). Give the adapter's own base model as --model."
        )
    expected = found.get("base_digest")
    actual = weights_digest(model.source) if isinstance(expected, str) else None
    if actual is not None and actual != expected:
        raise ContractError(
            f"The adapter in {visible(folder)} was trained on other weights (digest {visible(expected, limit=40)}) than those of "
            f"{model.source.name} ({actual}). Give the weights it was trained on, or train it again."
        )


def description(folder: Path) -> dict[str, Any]:
    """Return what an organism's folder says of it; nothing for an adapter that is not one of ours."""
    path = folder / DESCRIPTION
    return read_json_object(path, _LARGEST_DESCRIPTION) if path.is_file() else {}
