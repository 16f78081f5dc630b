"""Choice of device and dtype: measured on the machine at hand, and recorded with the reason."""

import functools
import time
from dataclasses import dataclass
from typing import Literal

import torch

from nla.support.errors import ConfigError

DTypeName = Literal["auto", "bfloat16", "float16", "float32"]

_SPEEDUP_NEEDED = 1.15
"""bf16 costs precision, so it has to be clearly faster before `auto` takes it on a CPU."""


@dataclass(frozen=True)
class Precision:
    """A dtype and why it was taken."""

    dtype: torch.dtype
    reason: str

    @property
    def name(self) -> str:
        """Short name, e.g. `bfloat16`."""
        return str(self.dtype).removeprefix("torch.")


def resolve_device(device: str) -> torch.device:
    """The device for `auto` (CUDA, then Apple's MPS, then CPU) or an explicit name.

    Raises:
        ConfigError: the device is unknown or not on this machine.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.empty(0, device=resolved)
    except (RuntimeError, AssertionError) as ex:
        raise ConfigError(f"device '{device}' cannot be used here ({str(ex).splitlines()[0]}); give -M device=cpu.") from ex
    return resolved


def resolve_precision(dtype: str, device: torch.device) -> Precision:
    """The dtype for weights and activations.

    `auto` takes bf16 on CUDA devices that support it (else fp16), and on a CPU or MPS whichever of bf16 and fp32 the
    micro-benchmark `bf16_speedup` favours.

    Raises:
        ConfigError: the name is not one of `auto`, `bfloat16`, `float16`, `float32`.
    """
    if dtype != "auto":
        named = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
        if dtype not in named:
            raise ConfigError(f"dtype '{dtype}' is unknown; expected auto, {', '.join(named)}.")
        return Precision(named[dtype], "asked for")
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported():
            return Precision(torch.bfloat16, "auto: CUDA device with bf16")
        return Precision(torch.float16, "auto: CUDA device without bf16")
    speedup = bf16_speedup(device.type)
    chosen = torch.bfloat16 if speedup >= _SPEEDUP_NEEDED else torch.float32
    return Precision(chosen, f"auto: bf16 matrix products measured {speedup:.1f}x as fast as fp32 on this {device.type}")


@functools.cache
def bf16_speedup(device_type: str, rows: int = 64, width: int = 1024) -> float:
    """How many times faster a `[rows, width] @ [width, width]` product is in bf16 than in fp32 (best of 5 runs of 4 products)."""

    def best(dtype: torch.dtype) -> float:
        left = torch.ones(rows, width, dtype=dtype, device=device_type)
        right = torch.ones(width, width, dtype=dtype, device=device_type)
        times = []
        for _ in range(6):
            start = time.perf_counter()
            for _ in range(4):
                result = left @ right
            result[0, 0].item()
            times.append(time.perf_counter() - start)
        return min(times[1:])

    return best(torch.float32) / best(torch.bfloat16)
