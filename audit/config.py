"""What `audit run` does: one model, tasks, conditions. Read from a TOML file or flags, and kept beside the logs."""

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from nla.activations.steering import parse_steer
from nla.support.errors import ConfigError
from nla.support.files import replacing

BASE = "base"
POSITIVE = "positive_control"
CONFIG_FILE = "audit_config.json"
_GROWS = {"tasks", "steer", "random_directions", "positive_control", "rewrite"}
"""Fields that a later run over the same folder may change: they add cells, and change none."""


@dataclass(frozen=True)
class Condition:
    """One way to run every task. `steer` is `NAME:STRENGTH`; `strength` and `direction` are its parts."""

    name: str
    system: str | None = None
    steer: str | None = None
    framing: str | None = None
    """Name of the rewritten prompts; None asks as the task does."""

    @property
    def strength(self) -> float:
        """0 without steering."""
        return parse_steer(self.steer)[1] if self.steer else 0.0

    @property
    def direction(self) -> str:
        """Name of the steering vector; empty without steering."""
        return parse_steer(self.steer)[0] if self.steer else ""


class AuditConfig(BaseModel):
    """An audit. Every field but those that only add cells must stay the same over one folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    model_args: dict[str, Any] = Field(default_factory=dict)
    tasks: tuple[str, ...] = Field(min_length=1)
    """Names of files in `tasks/`, or paths of task files."""
    source: str = "hub"
    """`hub` or `bundled`, for every task; `sources` overrides it by task."""
    sources: dict[str, str] = Field(default_factory=dict)
    task_args: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Parameters of single tasks, by task: `task_args.humaneval = { sandbox = "local" }`."""
    limit: int | None = Field(default=None, ge=1)
    epochs: int = Field(default=1, ge=1)
    max_tokens: int = Field(default=512, ge=1)
    temperature: float | None = Field(default=None, ge=0)
    seed: int = Field(default=0, ge=0)
    tokens: int = Field(default=50, ge=1)
    verbalizer: str = "av"
    nla: str | None = None
    grader: str = "rules"
    labels: str | None = None
    """Labelled explanations on which the grader's errors are measured; None takes the shipped ones for a grader that costs nothing."""
    layer: int | None = Field(default=None, ge=0)
    positive_control: bool = True
    steer: tuple[float, ...] = ()
    """Strengths of the steering vector; 0 is always run."""
    steer_vector: str = "awareness"
    random_directions: int = Field(default=3, ge=0)
    """Norm-matched random directions at every strength."""
    projected: bool = True
    """In steered cells, read again with the steering direction taken out of the vectors."""
    rewrite: tuple[Literal["realistic", "paraphrase"], ...] = ()
    """Framings of the prompts that are run beside the original one."""
    rewrites: dict[str, str] = Field(default_factory=dict)
    """Files of rewrites by task; those shipped with the project serve tasks that are not named here."""
    controls: int = Field(default=64, ge=0)
    """Vectors of the base condition that the instrument's own controls are made from; 0 leaves the controls out."""

    @field_validator("tasks")
    @classmethod
    def _no_task_twice(cls, tasks: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(tasks)) < len(tasks):
            raise ValueError("a task stands twice")
        return tasks

    def conditions(self) -> list[Condition]:
        """All conditions, the unsteered one first."""
        strengths = [strength for strength in dict.fromkeys(self.steer) if strength != 0]
        names = [self.steer_vector, *(f"random-{i + 1}" for i in range(self.random_directions))]
        steered = [Condition(f"{Path(name).stem}{strength:+g}", steer=f"{name}:{strength:+g}") for strength in strengths for name in names]
        positive = [Condition(POSITIVE, system="evaluation")] if self.positive_control else []
        reframed = [Condition(framing, framing=framing) for framing in dict.fromkeys(self.rewrite)]
        return [Condition(BASE), *positive, *reframed, *steered]


def read_audit(path: Path) -> AuditConfig:
    """An audit's TOML file.

    Raises:
        ConfigError: missing, not TOML, or with unknown or ill-formed fields.
    """
    try:
        return make_audit(tomllib.loads(path.read_text(encoding="utf-8")), str(path))
    except OSError as ex:
        raise ConfigError(f"{path} cannot be read: {ex.strerror}.") from ex
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as ex:
        raise ConfigError(f"{path} is not TOML: {ex}") from ex


def make_audit(fields: dict[str, Any], where: str) -> AuditConfig:
    """An audit from its fields.

    Raises:
        ConfigError: unknown or ill-formed fields.
    """
    try:
        return AuditConfig.model_validate(fields)
    except ValidationError as ex:
        known = ", ".join(AuditConfig.model_fields)
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in ex.errors()[:4])
        raise ConfigError(f"{where} does not describe an audit: {problems}. Known fields: {known}.") from ex


def keep_config(config: AuditConfig, out: Path) -> None:
    """Write the config into the run's folder, after checking that it does not change what is there.

    Raises:
        ConfigError: the folder holds a run with other settings.
    """
    path = out / CONFIG_FILE
    if path.is_file():
        before = stored_config(out)
        changed = [name for name in AuditConfig.model_fields if name not in _GROWS and getattr(before, name) != getattr(config, name)]
        if changed:
            told = ", ".join(f"{name} {getattr(before, name)!r} -> {getattr(config, name)!r}" for name in changed)
            raise ConfigError(f"{out} holds an audit with other settings ({told}); give another folder (--out).")
    out.mkdir(parents=True, exist_ok=True)
    with replacing(path) as scratch:
        scratch.write_text(json.dumps(config.model_dump(mode="json"), indent=1) + "\n", encoding="utf-8")


def stored_config(out: Path) -> AuditConfig:
    """The config of a run's folder.

    Raises:
        ConfigError: there is none, or it cannot be read.
    """
    path = out / CONFIG_FILE
    try:
        return make_audit(json.loads(path.read_text(encoding="utf-8")), str(path))
    except (OSError, ValueError) as ex:
        raise ConfigError(f"{out} is not the folder of an audit ({CONFIG_FILE} cannot be read); make one with `audit run`.") from ex
