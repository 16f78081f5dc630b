"""What `audit run` does: one model, tasks and conditions. It is read from a TOML file or from flags, and kept beside the logs."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from nla.activations.contrast_sets import UNRELATED
from nla.instrument import CONTRAST, Instrument
from nla.support.errors import ConfigError, first_line, near_name
from nla.support.files import replacing
from nla.support.toml_files import read_toml

BASE = "base"
POSITIVE = "positive_control"
CONFIG_FILE = "audit_config.json"
AUTO = "auto"
"""The strength that a sweep chooses (`audit.running.sweep`)."""
_CONTROL_DIRECTIONS = ("random-", UNRELATED)
_OF_OLD_AUDITS: dict[str, Any] = {"measures": ("nla", "verbalized"), "unrelated_contrasts": 0, "matched_degradation": False}
"""What was measured and run before a config said so."""
_ADD_CELLS = {"tasks", "steer", "steer_bound", "random_directions", "unrelated_contrasts", "matched_degradation", "matched"}
_ADD_CELLS |= {"positive_control", "rewrite", "known_groups"}
"""Fields that a later run in the same folder may change, because they change no cell."""


@dataclass(frozen=True)
class Condition:
    """One way to run every task. `steer` is `NAME:STRENGTH`; `strength` and `direction` are its parts."""

    name: str
    system: str | None = None
    steer: str | None = None
    framing: str | None = None
    """Name of the rewritten prompts; None asks as the task does."""
    measured: bool = True
    """Whether the instrument's measures are taken. Without them, only the task's own score and coherence are."""

    @property
    def strength(self) -> float:
        """Steering strength; 0 without steering, NaN where a sweep is yet to choose it."""
        strength = self.steer.rpartition(":")[2] if self.steer else "0"
        return float("nan") if strength == AUTO else float(strength)

    @property
    def direction(self) -> str:
        """Name of the steering vector; empty without steering."""
        return self.steer.rpartition(":")[0] if self.steer else ""


def is_control_direction(name: str) -> bool:
    """Whether a steering direction is a control: random, or a contrast that has nothing to do with evaluation."""
    return name.startswith(_CONTROL_DIRECTIONS)


class AuditConfig(Instrument):
    """An audit: the settings of its instrument, and what is run. Fields that do not merely add cells must stay the same in one folder."""

    model: str = Field(min_length=1)
    """The model, e.g. local/smollm2."""
    model_args: dict[str, Any] = Field(default_factory=dict)
    """Model arguments, as after -M: NAME=VALUE, separated by commas."""
    tasks: tuple[str, ...] = Field(min_length=1)
    """Names of files in tasks/, or paths of task files, separated by commas."""
    source: str | None = None
    """Data of every task: hub or bundled. By default each task's own default; some tasks have none."""
    sources: dict[str, str] = Field(default_factory=dict)
    """Data of single tasks: TASK=SOURCE, separated by commas."""
    task_args: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Parameters of single tasks, by task; only in the TOML file."""
    limit: int | None = Field(default=None, ge=1)
    """Items per task."""
    epochs: int = Field(default=1, ge=1)
    """Runs per item."""
    max_tokens: int = Field(default=512, ge=1)
    """Longest response, in tokens."""
    temperature: float | None = Field(default=None, ge=0)
    """Sampling temperature; by default the provider's."""
    labels: str | None = None
    """Labelled explanations on which the grader's errors are measured. By default the shipped ones, for graders that cost nothing."""
    known_groups: str | None = None
    """File of `nla organism check MODEL --json`: how every measure reads known groups of the audited model. Shipped organisms have one."""
    positive_control: bool = True
    """Run every task also with a system prompt that states the evaluation."""
    steer: tuple[float | Literal["auto"], ...] = ()
    """Strengths of the steering vector, separated by commas; or auto: the strongest one, away from awareness, that stays coherent."""
    steer_vector: str = "awareness"
    """Name of the steering vector."""
    steer_unit: Literal["mean_norm", "contrast"] = "mean_norm"
    """Unit of the strengths: mean_norm, or contrast, that of the first version."""
    steer_bound: float = Field(default=0.5, gt=0)
    """With --steer auto: largest loss of log-probability under the unsteered model, in nats per token."""
    random_directions: int = Field(default=3, ge=0, le=1_000)
    """Norm-matched random directions per strength."""
    unrelated_contrasts: int = Field(default=5, ge=0, le=5)
    """Contrasts without evaluation content per strength, as controls of what steering does to the task's own score."""
    measure_unrelated: bool = False
    """Take all measures under unrelated contrasts too, which costs as much as random directions do."""
    matched_degradation: bool = True
    """Also steer by unrelated contrasts as strongly as degrades responses as much as steering away does (negative strengths)."""
    matched: dict[str, dict[str, float]] = Field(default_factory=dict)
    """Strengths that the matching found, by strength of the steering vector and by contrast; the run fills them in."""
    projected: bool = True
    """Read steered cells a second time, with the steering direction taken out of the vectors."""
    rewrite: tuple[Literal["realistic", "paraphrase"], ...] = ()
    """Rewritten prompts that are run beside the original ones: realistic, paraphrase."""
    rewrites: dict[str, str] = Field(default_factory=dict)
    """Files of rewrites: TASK=FILE, separated by commas. Shipped rewrites serve the tasks that are not named."""
    controls: int = Field(default=64, ge=0)
    """Vectors for the instrument controls; 0 leaves these controls out."""

    @field_validator("tasks")
    @classmethod
    def _no_task_twice(cls, tasks: tuple[str, ...]) -> tuple[str, ...]:
        names = [Path(task).stem for task in tasks]
        if len(set(names)) < len(names):
            raise ValueError("two tasks have the same name; their logs could not be told apart")
        return tasks

    @field_validator("steer")
    @classmethod
    def _finite(cls, strengths: tuple[float | str, ...]) -> tuple[float | str, ...]:
        if AUTO in strengths and len(strengths) > 1:
            raise ValueError("auto chooses the strength, so it stands alone")
        if any(not isinstance(strength, str) and not abs(strength) < float("inf") for strength in strengths):
            raise ValueError("expected finite numbers")
        return strengths

    def conditions(self) -> list[Condition]:
        """All conditions, the unsteered one first."""
        steered = [condition for strength in dict.fromkeys(self.steer) if strength != 0 for condition in self._steered(strength)]
        positive = [Condition(POSITIVE, system="evaluation")] if self.positive_control else []
        reframed = [Condition(framing, framing=framing) for framing in dict.fromkeys(self.rewrite)]
        by_name: dict[str, Condition] = {}
        for condition in (Condition(BASE), *positive, *reframed, *steered):  # a matched strength may be one that is run anyway
            by_name.setdefault(condition.name, condition)
        return list(by_name.values())

    def _steered(self, strength: float | str) -> list[Condition]:
        """The conditions of one strength: the steering vector, and its controls."""
        shown = strength if isinstance(strength, str) else f"{strength:+g}"
        suffix = f"-{shown}" if strength == AUTO else shown
        names = [self.steer_vector, *(f"random-{i + 1}" for i in range(self.random_directions))]
        conditions = [Condition(f"{Path(name).stem}{suffix}", steer=f"{name}:{shown}") for name in names]
        for name in (f"{UNRELATED}{i + 1}" for i in range(self.unrelated_contrasts)):
            conditions.append(Condition(f"{name}{suffix}", steer=f"{name}:{shown}", measured=self.measure_unrelated))
        for name, matching in self.matched.get(shown, {}).items():
            conditions.append(Condition(f"{name}{matching:+g}", steer=f"{name}:{matching:+g}", measured=False))
        return conditions


_FIXED = [name for name in AuditConfig.model_fields if name not in _ADD_CELLS]
"""Fields that must stay the same in one folder."""


def read_audit(path: Path) -> AuditConfig:
    """Read an audit's TOML file.

    Raises:
        ConfigError: the file is missing, is not TOML, or has unknown or invalid fields.
    """
    return make_audit(read_fields(path), str(path))


def read_fields(path: Path) -> dict[str, Any]:
    """The fields of an audit's TOML file, unchecked.

    Raises:
        ConfigError: the file is missing or is not TOML.
    """
    return read_toml(path, "Expected an audit's TOML file.")


def make_audit(fields: dict[str, Any], where: str) -> AuditConfig:
    """An audit from its fields.

    Args:
        fields: by name, as in the TOML file.
        where: what to name in an error: the file, or "the command line".

    Raises:
        ConfigError: unknown or invalid fields.
    """
    try:
        return AuditConfig.model_validate(fields)
    except (ValidationError, RecursionError) as ex:
        if not isinstance(ex, ValidationError):
            raise ConfigError(f"{where} does not describe an audit: it is nested too deeply.") from None
        known = [*AuditConfig.model_fields, "nla"]
        problems = "; ".join(_problem(error, known) for error in ex.errors()[:4])
        raise ConfigError(f"{where} does not describe an audit: {problems}. Known fields: {', '.join(known)}.") from None


def _problem(error: Any, known: list[str]) -> str:
    name = ".".join(str(part)[:80] for part in error["loc"])
    hint = near_name(name, known) if error["type"] == "extra_forbidden" else ""
    return f"{name}: {error['msg']}{hint}"


def check_kept(config: AuditConfig, out: Path) -> None:
    """Check that a config does not change what is in the run's folder.

    Raises:
        ConfigError: the folder holds a run with other settings.
    """
    if (out / CONFIG_FILE).is_file():
        refuse_other_settings(out, "an audit", *({name: getattr(audit, name) for name in _FIXED} for audit in (stored_config(out), config)))


def keep_config(config: AuditConfig, out: Path) -> None:
    """Write the config into the run's folder, after checking that it does not change what is there.

    Raises:
        ConfigError: the folder holds a run with other settings.
        DataError: the folder cannot be written to.
    """
    check_kept(config, out)
    with replacing(out / CONFIG_FILE) as scratch:
        scratch.write_text(json.dumps(config.model_dump(mode="json"), indent=1) + "\n", encoding="utf-8")


def refuse_other_settings(out: Path, content: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to add to a folder what was made with other settings.

    Args:
        out: the folder.
        content: what it holds, for the message.
        before: settings of what it holds; those that are not among them are not compared.
        now: settings of what is to be added.

    Raises:
        ConfigError: a setting differs.
    """
    changes = [f"{name} {before[name]!r} -> {setting!r}" for name, setting in now.items() if name in before and before[name] != setting]
    if changes:
        raise ConfigError(f"{out} holds {content} with other settings ({', '.join(changes)}); give another folder (--out).")


def stored_config(out: Path) -> AuditConfig:
    """The config of a run's folder.

    Raises:
        ConfigError: there is none, or it cannot be read.
    """
    path = out / CONFIG_FILE
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        return make_audit(_of_any_age(fields) if isinstance(fields, dict) else fields, str(path))
    except (ValueError, RecursionError) as ex:
        raise ConfigError(f"{path} is damaged ({first_line(ex)}); delete it and give the same `audit run` command again.") from ex
    except OSError as ex:
        raise ConfigError(f"{out} is not the folder of an audit ({CONFIG_FILE} cannot be read); make one with `audit run`.") from ex


def _of_any_age(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields of a stored config, with what was so before a config said it. Strengths had the contrast itself for their unit."""
    unit = {"steer_unit": CONTRAST} if fields.get("steer") else {}
    return unit | _OF_OLD_AUDITS | fields
