"""The training loop that all stages share: learning-rate schedule, clipping, order of examples, checkpoints, metrics, progress.

A stage (`Stage`) returns a loss for a list of example numbers; everything else is written here once, and the files in
`nla.training.checkpoints`. With several processes (`torchrun`), each takes its share of every batch, and the gradients are
averaged, weighted so that the result is that of one process: adapters are small, so no wrapper around the model is needed. Only the main
process writes files and holds the lock; the metrics of single steps are those of its share.
"""

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import Protocol, runtime_checkable

import torch
from accelerate import Accelerator
from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console
from torch import Tensor, nn

from nla.support.errors import ConfigError, StoppedError
from nla.support.seeds import seeded_generator
from nla.training.checkpoints import MetricsFile, Progress, Run, read_metrics, resume, write_checkpoint
from nla.training.machine import loss_that_fits, tracked
from nla.training.work import work_lock

Say = Callable[[str], None]
"""Receives one line of progress at a time."""


class TrainConfig(BaseModel):
    """How a stage is trained. It is saved with the checkpoints; a checkpoint of another config is not resumed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(ge=1)
    batch: int = Field(default=32, ge=1)
    """Examples per step, over all processes."""
    lr: float = Field(default=5e-4, gt=0)
    """Peak learning rate of AdamW."""
    warmup: int = Field(default=20, ge=0)
    """Steps over which the learning rate rises to its peak."""
    final_lr: float = Field(default=0.1, ge=0)
    """Learning rate at the end of the cosine decay, as a share of `lr`."""
    weight_decay: float = Field(default=0.0, ge=0)
    clip: float = Field(default=1.0, gt=0)
    """Largest gradient norm of each group of parameters."""
    eval_every: int = Field(default=50, ge=1)
    """Steps between evaluations on held-out documents."""
    checkpoint_every: int = Field(default=25, ge=1)
    seed: int = 0


@dataclass(frozen=True)
class Group:
    """Parameters that are clipped together and share a learning rate."""

    parameters: list[nn.Parameter]
    lr_share: float = 1.0
    """Learning rate as a share of the config's."""


@runtime_checkable
class Stage(Protocol):
    """What a training stage provides."""

    @property
    def name(self) -> str:
        """Name shown in progress lines and errors."""
        ...

    @property
    def n_examples(self) -> int:
        """Number of training examples; batches are drawn from them without replacement, epoch after epoch."""
        ...

    def groups(self) -> list["Group"]:
        """Return the trained parameters in a fixed order. Gradients are clipped group by group."""
        ...

    def loss(self, rows: list[int], step: int) -> tuple[Tensor, dict[str, float]]:
        """Return the mean loss (a scalar with gradient) of the examples `rows` at a step, and figures for the metrics."""
        ...

    def evaluate(self) -> dict[str, float]:
        """Return figures measured on held-out documents."""
        ...


@runtime_checkable
class Following(Protocol):
    """A stage that changes with what it has measured, or ends early."""

    def follow(self, history: list[dict[str, float]]) -> str:
        """Take note of the metrics of all steps so far, before each step, and return why training should end here, or nothing.

        What changes from step to step follows from these metrics alone, so that a resumed run goes on as it would have.
        """
        ...


@runtime_checkable
class Counting(Protocol):
    """A stage whose loss is not a mean over the examples themselves."""

    def counts(self) -> list[float]:
        """Return over how many items (tokens, explanations) the latest loss is a mean, one number per group of parameters."""
        ...


@dataclass(frozen=True)
class Limits:
    """What a run of a stage is given besides its config; a checkpoint may be resumed under other limits."""

    seconds: float | None = None
    """Time for the stage, that of earlier runs included. The learning rate falls with the time, and the last step ends whole."""
    log_with: str | None = None
    """A tracker of accelerate's: tensorboard, wandb, trackio."""


def fit(stage: Stage, config: TrainConfig, folder: Path, say: Say | None = None, limits: Limits = Limits()) -> list[dict[str, float]]:
    """Train a stage to its last step, from the newest checkpoint where there is one. Return the metrics of all steps.

    A step whose loss or gradient is not finite changes no parameter and is counted (`skipped`).

    Args:
        stage: what to train.
        config: how to train it.
        folder: where checkpoints and metrics are written.
        say: receives a progress line every ten steps; None prints to stderr.
        limits: time budget and tracker.

    Raises:
        ConfigError: the checkpoint in the folder belongs to another run, another command is training in the folder, the time is too
            short for one checkpoint, memory does not suffice for the smallest part of a batch, the tracker is not installed, or a
            batch has fewer examples than there are processes.
        DataError: a checkpoint or the metrics cannot be written, or the checkpoint cannot be read.
        StoppedError: SIGTERM or SIGINT arrived; a checkpoint of the last step was written.
    """
    say = say or Console(stderr=True).print
    groups = stage.groups()
    parameters = [parameter for group in groups for parameter in group.parameters]
    accelerator = tracked(stage.name, config, folder, limits.log_with, parameters[0].device)
    if config.batch < accelerator.num_processes:
        raise ConfigError(
            f"{stage.name}: a batch of {config.batch} cannot be shared by {accelerator.num_processes} processes; "
            "expected at least one example for each. Give a larger batch, or start fewer processes."
        )
    described = [{"params": group.parameters, "lr_share": group.lr_share} for group in groups]
    optimizer = torch.optim.AdamW(described, lr=config.lr, betas=(0.9, 0.98), weight_decay=config.weight_decay)
    run = Run(folder, config, stage.n_examples, parameters, optimizer)
    with work_lock(folder, f"training of the stage {stage.name}"), _stop_flag() as signals:
        progress = resume(run)
        metrics = MetricsFile(folder, progress.step) if accelerator.is_main_process else None
        _steps(stage, config, run, progress, metrics, accelerator, say, signals, limits.seconds)
        accelerator.wait_for_everyone()
        for tracker in accelerator.trackers:  # `end_training` would also end the exchange between processes, which the next stage needs
            tracker.finish()
    return read_metrics(folder)


def _steps(
    stage: Stage,
    config: TrainConfig,
    run: Run,
    progress: Progress,
    metrics: MetricsFile | None,
    accelerator: Accelerator,
    say: Say,
    signals: list[int],
    budget: float | None,
) -> None:
    """Take all steps that are left. `metrics` is None in all processes but the main one."""
    step, skipped, spent = progress.step, progress.skipped, progress.seconds
    started, first = time.monotonic() - spent, step
    history = [figures for figures in read_metrics(run.folder) if figures["step"] <= step]
    while step < config.steps and (budget is None or spent < budget):
        if isinstance(stage, Following) and (reason := stage.follow(history)):
            say(f"{stage.name}: ended at step {step} of {config.steps}, because {reason}.")
            return
        lr = config.lr * learning_rate_share(step, config, spent / budget if budget else 0.0)
        for group in run.optimizer.param_groups:
            group["lr"] = lr * group["lr_share"]
        figures = _one_step(stage, config, step, run.optimizer, accelerator, say)
        step += 1
        skipped += figures.pop("skip", 0)
        spent, stopping = _agreed(time.monotonic() - started, bool(signals), accelerator)
        last = step == config.steps or (budget is not None and spent >= budget)
        if last and step < min(config.checkpoint_every, config.steps):
            raise ConfigError(
                f"{stage.name}: {budget or 0:.0f} s are enough for {step} steps, but a checkpoint needs {config.checkpoint_every}. "
                "Give more --minutes, or a smaller checkpoint_every."
            )
        figures |= {"step": step, "skipped": skipped, "lr": lr, "seconds": spent}
        if step % config.eval_every == 0 or last:
            figures |= {f"heldout_{name}": value for name, value in stage.evaluate().items()}
        history.append(figures)
        if metrics is not None:
            metrics.add(figures)
            accelerator.log({name: value for name, value in figures.items() if name != "step"}, step=step)
            if step % 10 == 0 or last:
                per_step = (spent - progress.seconds) / (step - first)
                left = min((config.steps - step) * per_step, budget - spent if budget else math.inf)
                say(_line(stage.name, figures, step, config.steps, per_step, left))
            if step % config.checkpoint_every == 0 or step % config.eval_every == 0 or last or stopping:
                write_checkpoint(run, Progress(step, skipped, spent))
        if stopping:
            raise StoppedError(f"{stage.name}: stopped at step {step} of {config.steps}. The same command resumes from there.")


def _agreed(seconds: float, stopping: bool, accelerator: Accelerator) -> tuple[float, bool]:
    """Return the main process's time, and whether a signal has arrived in any process.

    With clocks of their own, processes would learn at different rates, and one would wait for ever for another that has ended.
    """
    if accelerator.num_processes == 1:
        return seconds, stopping
    own = torch.tensor([seconds if accelerator.is_main_process else 0.0, float(stopping)], dtype=torch.float64, device=accelerator.device)
    sums: Tensor = accelerator.reduce(own, "sum")
    return float(sums[0]), bool(sums[1])


def learning_rate_share(step: int, config: TrainConfig, time_share: float = 0.0) -> float:
    """Return the share of the peak learning rate at a step (0-based): linear warm-up, then a cosine down to `final_lr`.

    Where a share of the time is spent that is larger than the share of the steps, it decides how far the cosine has come.
    """
    if step < config.warmup and time_share < 1:
        return (step + 1) / config.warmup
    progress = max((step - config.warmup) / max(config.steps - config.warmup, 1), min(time_share, 1.0))
    return config.final_lr + (1 - config.final_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def batch_rows(step: int, n_examples: int, config: TrainConfig) -> list[int]:
    """Return the example numbers of a step: consecutive pieces of one seeded permutation per epoch, so a resumed run draws the same."""
    rows = []
    for i in range(step * config.batch, (step + 1) * config.batch):
        epoch, place = divmod(i, n_examples)
        rows.append(int(_permutation(config.seed, epoch, n_examples)[place]))
    return rows


@lru_cache(maxsize=2)  # a batch may hold the end of one epoch and the start of the next
def _permutation(seed: int, epoch: int, n: int) -> Tensor:
    return torch.from_numpy(seeded_generator("order", seed, epoch).permutation(n))


def _one_step(
    stage: Stage, config: TrainConfig, step: int, optimizer: torch.optim.Optimizer, accelerator: Accelerator, say: Say
) -> dict[str, float]:
    rows = batch_rows(step, stage.n_examples, config)
    groups = [group["params"] for group in optimizer.param_groups]
    parameters = [parameter for group in groups for parameter in group]
    mine = rows[accelerator.process_index :: accelerator.num_processes]
    loss, figures = loss_that_fits(stage, mine, step, say)
    optimizer.zero_grad(set_to_none=True)
    if bool(loss.isfinite()):
        loss.backward()
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.full_like(parameter, 0.0 if bool(loss.isfinite()) else torch.nan)
    if accelerator.num_processes > 1:
        counts = stage.counts() if isinstance(stage, Counting) else [float(len(mine))] * len(groups)
        _average_gradients(groups, counts, accelerator)
    norms = torch.stack([nn.utils.clip_grad_norm_(group, config.clip) for group in groups])
    norm = norms.norm()
    if not bool(norm.isfinite()):
        return {"loss": float(loss.detach()), "skip": 1, **figures}
    optimizer.step()
    return {"loss": float(loss.detach()), "grad_norm": float(norm), **figures}


def _average_gradients(groups: list[list[nn.Parameter]], counts: list[float], accelerator: Accelerator) -> None:
    """Average all gradients over the processes, each weighted by its group's count in that process.

    There is one exchange for everything: each exchange waits for the slowest process, and tensors are many.
    """
    gradients = [[parameter.grad for parameter in group if parameter.grad is not None] for group in groups]
    flat = [gradient.flatten() * count for group, count in zip(gradients, counts, strict=True) for gradient in group]
    sums: Tensor = accelerator.reduce(torch.cat([*flat, flat[0].new_tensor(counts)]), "sum")
    pieces = iter(sums.split([*(piece.numel() for piece in flat), *[1] * len(counts)]))
    weighted = [[next(pieces) for _ in group] for group in gradients]
    for group, of_group, total in zip(gradients, weighted, pieces, strict=True):
        for gradient, piece in zip(group, of_group, strict=True):
            gradient.copy_((piece / total.clamp_min(1)).view_as(gradient))


def _line(name: str, figures: dict[str, float], step: int, steps: int, per_step: float, seconds_left: float) -> str:
    left = time.strftime("%H:%M:%S", time.gmtime(max(seconds_left, 0)))
    hidden = ("step", "seconds", "lr", "skipped")
    shown = "  ".join(f"{key} {value:.3f}" for key, value in figures.items() if key not in hidden)
    return f"{name} {step}/{steps}  {per_step:.2f} s/step  left {left}  {shown}"


@contextmanager
def _stop_flag() -> Iterator[list[int]]:
    """Yield a list that receives the signal number when SIGTERM or SIGINT arrives, so that the step in progress is finished first."""
    arrived: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        arrived.append(number)

    old = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield arrived
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
