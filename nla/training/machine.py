"""What training asks of the machine: a tracker for the metrics, and a loss that fits into the memory."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from accelerate import Accelerator
from accelerate.utils import LoggerType
from pydantic import BaseModel
from torch import Tensor

from nla.support.display import visible
from nla.support.errors import ConfigError, first_line

TRACKERS = ("tensorboard", "wandb", "trackio")


@runtime_checkable
class Parted(Protocol):
    """A stage whose loss is differentiated in parts of at most `part` rows."""

    part: int


@runtime_checkable
class HasLoss(Protocol):
    """A stage, as far as its loss is concerned."""

    @property
    def name(self) -> str:
        """Name shown in messages."""
        ...

    def loss(self, rows: list[int], step: int) -> tuple[Tensor, dict[str, float]]:
        """See `nla.training.loop.Stage`."""
        ...


def tracked(name: str, config: BaseModel, folder: Path, tracker: str | None, device: torch.device) -> Accelerator:
    """Return an accelerator, for training on a kind of device, that sends metrics to a tracker; None sends them nowhere.

    On a CPU it has to be told so: otherwise each process that `torchrun` starts there believes that it is the only one.

    Raises:
        ConfigError: the tracker is unknown, or its package is not installed.
    """
    on_cpu = device.type == "cpu"
    if tracker is None:
        return Accelerator(cpu=on_cpu)
    if tracker not in TRACKERS:
        raise ConfigError(f"The tracker '{visible(tracker, limit=60)}' is not known; expected one of {', '.join(TRACKERS)}.")
    try:
        accelerator = Accelerator(cpu=on_cpu, log_with=LoggerType(tracker), project_dir=folder)
        accelerator.init_trackers(f"nla-{name}", config=config.model_dump())
    except (ImportError, ValueError) as ex:
        raise ConfigError(f"The tracker {tracker} cannot be used: {first_line(ex)} Install it with `pip install {tracker}`.") from ex
    return accelerator


def loss_that_fits(stage: HasLoss, rows: list[int], step: int, say: Callable[[str], None]) -> tuple[Tensor, dict[str, float]]:
    """Return a stage's loss; where the device's memory does not suffice, the parts of the batch are halved once, and stay so.

    Raises:
        ConfigError: the memory does not suffice for the halved parts either, or the stage has no parts.
    """
    try:
        return stage.loss(rows, step)
    except torch.OutOfMemoryError as ex:
        if not isinstance(stage, Parted) or stage.part < 2:
            raise _no_memory(stage, step, ex) from ex
        stage.part //= 2
        say(f"{stage.name}: the device's memory does not suffice; parts of a batch are halved to {stage.part} rows.")
    torch.cuda.empty_cache()
    try:
        return stage.loss(rows, step)
    except torch.OutOfMemoryError as ex:
        raise _no_memory(stage, step, ex) from ex


def _no_memory(stage: HasLoss, step: int, ex: Exception) -> ConfigError:
    return ConfigError(
        f"{stage.name}, step {step + 1}: the device's memory does not suffice ({first_line(ex)}). "
        "Give a smaller batch or group; the checkpoint is kept, and the same command resumes from it."
    )
