"""Known-groups results as files: what `nla organism check --json` and `audit readers --json` wrote, and the organisms' own checks."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nla.models.sources import organism_folder
from nla.support.display import visible
from nla.support.errors import DataError, first_line

Stored = TypeVar("Stored", bound=BaseModel)
CHECK_FILE = "check.json"
"""The check in an organism's folder."""
_MOST_CHARACTERS = 10_000_000
"""Characters of a file; a check has about ten thousand."""


class Interval(BaseModel):
    """An AUROC with its 95 % interval over n prompts."""

    model_config = ConfigDict(frozen=True)

    estimate: float = Field(ge=0, le=1)
    low: float = Field(ge=0, le=1)
    high: float = Field(ge=0, le=1)
    n: int = Field(ge=1)


class StoredCheck(BaseModel):
    """What figures and audits need of a file that `nla organism check --json` wrote."""

    model_config = ConfigDict(frozen=True)

    model: dict[str, Any]
    layer: int
    n: int
    auroc: dict[str, Interval] = Field(min_length=1)

    @property
    def adapter(self) -> str:
        """Name and digest of the model's adapter, `NAME@DIGEST`; `none` without one."""
        return adapter_text(self.model)

    @property
    def name(self) -> str:
        """The organism's or the model's name."""
        return str(self.model.get("adapter") or self.model.get("model") or "?")


class StoredReader(BaseModel):
    """What a report shows of one reader."""

    model_config = ConfigDict(frozen=True)

    auroc: Interval
    labels: int = Field(ge=0)
    reads: str
    seconds_per_1000: float = Field(ge=0)
    megabytes: float | None = None


class StoredSpectrum(BaseModel):
    """What a report needs of a file that `audit readers --json` wrote."""

    model_config = ConfigDict(frozen=True)

    model: dict[str, Any]
    layer: int
    n: int
    readers: dict[str, StoredReader] = Field(min_length=1)

    def as_check(self) -> StoredCheck:
        """Return the readers' AUROCs in the form of a known-groups check, as figures draw them."""
        areas = {name: reader.auroc for name, reader in self.readers.items()}
        return StoredCheck(model=self.model, layer=self.layer, n=self.n, auroc=areas)


def read_check(path: Path) -> StoredCheck:
    """Read a check from its JSON file.

    Raises:
        DataError: the file cannot be read, or no check wrote it.
    """
    return _read(path, StoredCheck, "known-groups check", "nla organism check")


def read_spectrum_file(path: Path) -> StoredSpectrum:
    """Read what `audit readers --json` wrote.

    Raises:
        DataError: the file cannot be read, or the command did not write it.
    """
    return _read(path, StoredSpectrum, "table of readers", "audit readers")


def _read(path: Path, kind: type[Stored], what: str, command: str) -> Stored:
    try:
        text = path.read_text(encoding="utf-8")
        if len(text) > _MOST_CHARACTERS:
            raise DataError(f"{visible(path)} has {len(text)} characters; expected a file that `{command} --json` wrote.")
        return kind.model_validate(json.loads(text))
    except ValidationError as ex:
        where = ".".join(map(str, ex.errors()[0]["loc"]))
        problem = f"{visible(where)}: {visible(ex.errors()[0]['msg'])}"
        raise DataError(f"{visible(path)} is no {what} ({problem}); make one with `{command} MODEL --json FILE`.") from ex
    except (OSError, ValueError, RecursionError) as ex:
        raise DataError(f"{visible(path)} cannot be read: {first_line(ex)}") from ex


def adapter_text(described: Mapping[str, Any]) -> str:
    """Return `NAME@DIGEST` of the adapter in a model's description (`LoadedModel.describe`); `none` without one."""
    name = described.get("adapter")
    return f"{name}@{described.get('adapter_digest')}" if name else "none"


def shipped_check(adapter: str) -> StoredCheck | None:
    """Return the check that ships with an organism of this project, or None if there is none for just these weights.

    Args:
        adapter: name and digest, as `StoredCheck.adapter` gives them.
    """
    folder = organism_folder(adapter.partition("@")[0])
    if folder is None or not (folder / CHECK_FILE).is_file():
        return None
    check = read_check(folder / CHECK_FILE)
    return check if check.adapter == adapter else None
