"""The training loop all stages share: schedule, clipping, data order, checkpoints that survive a kill, metrics, progress.

A stage gives a loss for a list of example numbers. Everything else is here, once. On several devices each process takes its
share of a batch and gradients are averaged (adapters are small, so no wrapper is needed); start with `accelerate launch`.
"""

import json
import math
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Protocol, runtime_checkable

import pandas as pd
import torch
from accelerate import Accelerator
from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nla.support.errors import ConfigError, DataError, StoppedError
from nla.support.files import replacing
from nla.support.seeds import seeded_generator

METRICS = "metrics.jsonl"
_STATE = "state.json"


class TrainConfig(BaseModel):
    """How a stage is trained. Saved beside its checkpoints; a checkpoint of another config is not continued."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(ge=1)
    batch: int = Field(default=32, ge=1)
    lr: float = Field(default=5e-4, gt=0)
    warmup: int = Field(default=20, ge=0)
    final_lr: float = Field(default=0.1, ge=0)
    """Share of `lr` that is left at the end of the cosine."""
    weight_decay: float = Field(default=0.0, ge=0)
    clip: float = Field(default=1.0, gt=0)
    eval_every: int = Field(default=50, ge=1)
    checkpoint_every: int = Field(default=25, ge=1)
    seed: int = 0


@dataclass(frozen=True)
class Group:
    """Parameters that are clipped together and share a learning rate."""

    parameters: list[nn.Parameter]
    lr_share: float = 1.0
    """Of the config's learning rate."""


@runtime_checkable
class Stage(Protocol):
    """What a stage of training brings."""

    @property
    def name(self) -> str:
        """Shown in progress and errors."""
        ...

    @property
    def n_examples(self) -> int:
        """How many examples there are; batches are drawn from them without replacement, epoch after epoch."""
        ...

    def groups(self) -> list["Group"]:
        """What is trained, in a fixed order. Gradients are clipped group by group."""
        ...

    def loss(self, rows: list[int], step: int) -> tuple[Tensor, dict[str, float]]:
        """Mean loss of some examples, with figures for the record."""
        ...

    def evaluate(self) -> dict[str, float]:
        """Figures on held-out documents."""
        ...


def fit(stage: Stage, config: TrainConfig, folder: Path, say: Callable[[str], None] | None = None) -> pd.DataFrame:
    """Train a stage to its last step, from the newest checkpoint where there is one; returns the metrics of all steps.

    Non-finite losses or gradients skip their step and are counted (`skipped`).

    Args:
        stage: what to train.
        config: how.
        folder: of the checkpoints and metrics.
        say: told one line now and then; None prints to stderr.

    Raises:
        ConfigError: the checkpoints in the folder are of another config.
        DataError: a checkpoint cannot be written.
        StoppedError: a signal arrived.
    """
    say = say or Console(stderr=True).print
    folder.mkdir(parents=True, exist_ok=True)
    accelerator = Accelerator()
    groups = stage.groups()
    parameters = [parameter for group in groups for parameter in group.parameters]
    described = [{"params": group.parameters, "lr_share": group.lr_share} for group in groups]
    optimizer = torch.optim.AdamW(described, lr=config.lr, betas=(0.9, 0.98), weight_decay=config.weight_decay)
    step, skipped = _resume(folder, config, parameters, optimizer)
    record = _Record(folder / METRICS, step)
    started, first = time.monotonic(), step
    with _stop_flag() as stopping:
        while step < config.steps:
            lr = config.lr * learning_rate_share(step, config)
            for group in optimizer.param_groups:
                group["lr"] = lr * group["lr_share"]
            figures = _one_step(stage, config, step, optimizer, accelerator)
            step += 1
            skipped += figures.pop("skip", 0)
            figures |= {"step": step, "skipped": skipped, "lr": lr, "seconds": time.monotonic() - started}
            if step % config.eval_every == 0 or step == config.steps:
                figures |= {f"heldout_{name}": value for name, value in stage.evaluate().items()}
            if accelerator.is_main_process:
                record.add(figures)
                if step % 10 == 0 or step == config.steps:
                    say(_line(stage.name, figures, step, config.steps, (time.monotonic() - started) / (step - first)))
                if step % config.checkpoint_every == 0 or step == config.steps or stopping:
                    _checkpoint(folder, config, step, skipped, parameters, optimizer)
            if stopping:
                raise StoppedError(f"{stage.name}: stopped at step {step} of {config.steps}; the same command goes on from there.")
    return pd.read_json(folder / METRICS, lines=True)


def learning_rate_share(step: int, config: TrainConfig) -> float:
    """Share of the peak learning rate at a step (0-based): linear warm-up, then a cosine down to `final_lr`."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    progress = (step - config.warmup) / max(config.steps - config.warmup, 1)
    return config.final_lr + (1 - config.final_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def batch_rows(step: int, n_examples: int, config: TrainConfig) -> list[int]:
    """Example numbers of a step: consecutive pieces of one seeded permutation an epoch, so any step can be found again."""
    rows = []
    for i in range(step * config.batch, (step + 1) * config.batch):
        epoch, place = divmod(i, n_examples)
        rows.append(int(_permutation(config.seed, epoch, n_examples)[place]))
    return rows


def _permutation(seed: int, epoch: int, n: int, _kept: dict[tuple[int, int, int], Tensor] = {}) -> Tensor:  # noqa: B006
    key = (seed, epoch, n)
    if key not in _kept:
        _kept.clear()
        _kept[key] = torch.from_numpy(seeded_generator("order", seed, epoch).permutation(n))
    return _kept[key]


def _one_step(stage: Stage, config: TrainConfig, step: int, optimizer: torch.optim.Optimizer, accelerator: Accelerator) -> dict[str, float]:
    rows = batch_rows(step, stage.n_examples, config)
    groups = [group["params"] for group in optimizer.param_groups]
    parameters = [parameter for group in groups for parameter in group]
    mine = rows[accelerator.process_index :: accelerator.num_processes]
    loss, figures = stage.loss(mine, step)
    optimizer.zero_grad(set_to_none=True)
    if bool(loss.isfinite()):
        loss.backward()
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.full_like(parameter, 0.0 if bool(loss.isfinite()) else torch.nan)
    if accelerator.num_processes > 1:
        _average_gradients(parameters, accelerator)
    norms = torch.stack([nn.utils.clip_grad_norm_(group, config.clip) for group in groups])
    norm = norms.norm()
    if not bool(norm.isfinite()):
        return {"loss": float(loss.detach()), "skip": 1, **figures}
    optimizer.step()
    return {"loss": float(loss.detach()), "grad_norm": float(norm), **figures}


def _average_gradients(parameters: list[nn.Parameter], accelerator: Accelerator) -> None:
    """One exchange for all of them: an adapter has hundreds of small tensors, and each exchange waits for the slowest process."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat: Tensor = accelerator.reduce(torch.cat([gradient.flatten() for gradient in gradients]), "mean")
    for gradient, mean in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def _line(name: str, figures: dict[str, float], step: int, steps: int, per_step: float) -> str:
    left = time.strftime("%H:%M:%S", time.gmtime((steps - step) * per_step))
    hidden = ("step", "seconds", "lr", "skipped")
    told = "  ".join(f"{key} {value:.3f}" for key, value in figures.items() if key not in hidden)
    return f"{name} {step}/{steps}  {per_step:.2f} s/step  left {left}  {told}"


class _Record:
    """Metrics, one JSON line a step; what a killed run wrote after its last checkpoint is dropped."""

    def __init__(self, path: Path, step: int) -> None:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
        with replacing(path) as scratch:
            scratch.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        self._path = path

    def add(self, figures: dict[str, float]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(figures) + "\n")


def _checkpoint(
    folder: Path, config: TrainConfig, step: int, skipped: float, parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer
) -> None:
    """Write parameters, optimizer and step under a temporary name, then rename; older ones go after that.

    Raises:
        DataError: the disk is full or cannot be written; the newest whole checkpoint stays.
    """
    scratch, final = folder / ".checkpoint.tmp", folder / f"checkpoint-{step:06d}"
    tensors = {f"parameter.{i}": p.detach().cpu().contiguous() for i, p in enumerate(parameters)}
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{name}": value.cpu().contiguous() for name, value in state.items()}
    described = {"step": step, "skipped": skipped, "config": config.model_dump()}
    try:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        save_file(tensors, scratch / "tensors.safetensors")
        (scratch / _STATE).write_text(json.dumps(described), encoding="utf-8")
        shutil.rmtree(final, ignore_errors=True)
        os.replace(scratch, final)
    except (OSError, SafetensorError) as ex:
        shutil.rmtree(scratch, ignore_errors=True)
        kept = [path.name for path in sorted(folder.glob("checkpoint-*"))]
        raise DataError(
            f"the checkpoint of step {step} cannot be written to {folder}: {ex}. "
            f"{f'{kept[-1]} is whole' if kept else 'There is none yet'}; make room and run the same command again."
        ) from ex
    for old in sorted(folder.glob("checkpoint-*"))[:-1]:
        shutil.rmtree(old, ignore_errors=True)


def _resume(folder: Path, config: TrainConfig, parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer) -> tuple[int, float]:
    found = sorted(folder.glob("checkpoint-*"))
    if not found:
        return 0, 0
    state = json.loads((found[-1] / _STATE).read_text(encoding="utf-8"))
    if state["config"] != config.model_dump():
        changed = [key for key, value in config.model_dump().items() if state["config"].get(key) != value]
        raise ConfigError(f"{folder} holds a run with another {', '.join(changed)}; give another folder, or delete this one.")
    tensors = load_file(found[-1] / "tensors.safetensors")
    with torch.no_grad():
        for i, parameter in enumerate(parameters):
            parameter.copy_(tensors[f"parameter.{i}"])
    states: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".")
            states.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(state["step"]), float(state["skipped"])


@contextmanager
def _stop_flag() -> Iterator[list[int]]:
    """A list that holds the signal once SIGTERM or SIGINT has arrived; the step in progress is finished first."""
    arrived: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        arrived.append(number)

    old = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield arrived
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
