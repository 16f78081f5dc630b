"""What a training stage keeps on disk: one line of metrics per step, and checkpoints from which the same command resumes.

A stage's folder holds `metrics.jsonl` and the newest `checkpoint-NNNNNN/` (trained parameters, optimizer state, step, config). A
checkpoint appears whole, by a rename, and the one before it is deleted only after that. So a kill, a full disk or a read-only disk
costs at most the steps since the last checkpoint, and the resumed training ends with the same bits as an uninterrupted one.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nla.support.errors import ConfigError, DataError, first_line
from nla.support.files import replacing, scratch_folder

METRICS = "metrics.jsonl"
_STATE, _TENSORS = "state.json", "tensors.safetensors"


@dataclass(frozen=True)
class Run:
    """What a checkpoint belongs to; a checkpoint of a different run is not resumed."""

    folder: Path
    config: BaseModel
    n_examples: int
    """Number of training examples."""
    parameters: list[nn.Parameter]
    """What is trained, in a fixed order."""
    optimizer: torch.optim.Optimizer


@dataclass(frozen=True)
class Progress:
    """How far a training stage has come: steps done, how many of them were skipped because they were not finite, and seconds spent."""

    step: int = 0
    skipped: float = 0
    seconds: float = 0


class MetricsFile:
    """Metrics of the steps, one JSON object per line. Lines that a killed run wrote after its last checkpoint are dropped.

    Args:
        folder: the stage's folder.
        step: the step that training resumes from.

    Raises:
        DataError: the file cannot be written.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._folder = folder
        kept = [figures for figures in read_metrics(folder) if figures["step"] <= step]
        with replacing(folder / METRICS) as scratch:
            scratch.write_text("".join(json.dumps(figures) + "\n" for figures in kept), encoding="utf-8")

    def add(self, figures: dict[str, float]) -> None:
        """Append the figures of one step.

        Raises:
            DataError: the disk is full or read-only; the newest checkpoint stays.
        """
        try:
            with (self._folder / METRICS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(figures) + "\n")
        except OSError as ex:
            raise _write_error(f"the metrics of step {figures['step']}", self._folder, ex) from ex


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """Return the metrics of a stage's steps, in order; empty where there are none. A line that a kill cut short is left out."""
    path = folder / METRICS
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and "step" in row:
            rows.append(row)
    return rows


def write_checkpoint(run: Run, progress: Progress) -> None:
    """Write the parameters, the optimizer state and the step; then delete older checkpoints.

    Raises:
        DataError: the disk is full or read-only; the newest whole checkpoint stays.
    """
    final = run.folder / f"checkpoint-{progress.step:06d}"
    tensors = {f"parameter.{i}": p.detach().cpu().contiguous() for i, p in enumerate(run.parameters)}
    for i, state in run.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{name}": value.cpu().contiguous() for name, value in state.items()}
    described = {
        "step": progress.step,
        "skipped": progress.skipped,
        "seconds": progress.seconds,
        "config": run.config.model_dump(),
        "n_examples": run.n_examples,
    }
    try:
        with scratch_folder(run.folder) as scratch:
            with replacing(scratch / _TENSORS) as file:
                save_file(tensors, file)
            with replacing(scratch / _STATE) as file:
                file.write_text(json.dumps(described), encoding="utf-8")
            shutil.rmtree(final, ignore_errors=True)
            os.replace(scratch, final)
    except (DataError, OSError, SafetensorError) as ex:
        raise _write_error(f"the checkpoint of step {progress.step}", run.folder, ex) from ex
    for old in _checkpoints(run.folder)[:-1]:
        shutil.rmtree(old, ignore_errors=True)


def resume(run: Run) -> Progress:
    """Load the newest checkpoint into the run's parameters and optimizer, and return its progress.

    Raises:
        ConfigError: the checkpoint is of another config, of other training examples or of parameters of other shapes.
        DataError: the checkpoint cannot be read.
    """
    checkpoints = _checkpoints(run.folder)
    if not checkpoints:
        return Progress()
    state, tensors = _read(checkpoints[-1])
    _refuse_another_run(run, state, tensors)
    with torch.no_grad():
        for i, parameter in enumerate(run.parameters):
            parameter.copy_(tensors[f"parameter.{i}"])
    states: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".")
            states.setdefault(int(index), {})[key] = tensor
    run.optimizer.load_state_dict({"state": states, "param_groups": run.optimizer.state_dict()["param_groups"]})
    return Progress(int(state["step"]), float(state["skipped"]), float(state.get("seconds", 0)))


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*"))


def _read(checkpoint: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return a checkpoint's description and its tensors."""
    try:
        state = json.loads((checkpoint / _STATE).read_text(encoding="utf-8"))
        missing = [name for name in ("step", "skipped", "config") if name not in state]
        if missing:
            raise ValueError(f"{_STATE} has no {', '.join(missing)}")
        return state, load_file(checkpoint / _TENSORS)
    except (OSError, ValueError, TypeError, SafetensorError) as ex:
        reason = first_line(ex).rstrip(".")
        raise DataError(f"{checkpoint} cannot be read: {reason}. Delete it; the same command then trains this stage anew.") from ex


def _refuse_another_run(run: Run, state: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Raise a ConfigError where a checkpoint does not belong to this run."""
    config = run.config.model_dump()
    changed = [key for key, value in config.items() if state["config"].get(key) != value]
    if changed or state["config"].keys() != config.keys():
        names = ", ".join(changed or sorted(state["config"].keys() ^ config.keys()))
        raise ConfigError(f"{run.folder} holds a run with another {names}; give another folder, or delete this one.")
    if state.get("n_examples", run.n_examples) != run.n_examples:
        raise ConfigError(
            f"{run.folder} holds a run on {state['n_examples']} training examples, but there are {run.n_examples} now; "
            "give another folder, or delete this one."
        )
    stored = [tuple(tensors[name].shape) for i in range(len(tensors)) if (name := f"parameter.{i}") in tensors]
    if stored != [tuple(parameter.shape) for parameter in run.parameters]:
        raise ConfigError(
            f"{run.folder} holds a run whose trained parameters have other shapes (another adapter rank or base model); "
            "give another folder, or delete this one."
        )


def _write_error(what: str, folder: Path, ex: Exception) -> DataError:
    """Return the error for a write that failed, which says what is still there and how to resume."""
    reason = ex.strerror if isinstance(ex, OSError) and ex.strerror else first_line(ex)
    kept = _checkpoints(folder)
    there = f"{kept[-1].name} is whole" if kept else "There is no checkpoint yet"
    return DataError(f"{what} cannot be written to {folder}: {reason.rstrip('.')}. {there}; make room and run the same command again.")
