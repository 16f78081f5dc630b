"""Choose the device and dtype of a model. `auto` may measure speed on this machine, and each choice is recorded with its reason."""

import functools
import importlib.util
import time
from dataclasses import dataclass
from typing import Any

import torch

from nla.support.display import visible
from nla.support.errors import ConfigError, first_line

_SPEEDUP_NEEDED = 1.15
"""bf16 is less precise than fp32, so `auto` chooses it on a CPU or MPS only if it is at least this many times as fast."""
_HOPELESS = 4.0
"""A bf16 product that takes this many times as long as an fp32 one is not measured again; a busy machine does not slow one down so much."""


@dataclass(frozen=True)
class Precision:
    """A dtype and the reason for it."""

    dtype: torch.dtype
    """What the model computes in and, unless `four_bit`, stores its weights in."""
    reason: str
    four_bit: bool = False
    """Whether the linear layers store their weights in 4 bits (bitsandbytes, NF4)."""

    @property
    def name(self) -> str:
        """Short name, as a user gives it, such as `bfloat16` or `4bit`."""
        return "4bit" if self.four_bit else str(self.dtype).removeprefix("torch.")

    def loading_options(self) -> dict[str, Any]:
        """Return the keyword arguments that make `from_pretrained` load weights in this precision."""
        if not self.four_bit:
            return {"dtype": self.dtype}
        from transformers import BitsAndBytesConfig

        quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=self.dtype)
        return {"dtype": self.dtype, "quantization_config": quantization}


def resolve_device(device: str) -> torch.device:
    """Return the device for `auto` (CUDA if available, otherwise Apple's MPS, otherwise the CPU) or for an explicit name.

    Raises:
        ConfigError: the device is unknown or absent from this machine.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.empty(0, device=resolved)
    except (RuntimeError, AssertionError, ValueError) as ex:
        raise ConfigError(f"Device '{visible(device, limit=80)}' cannot be used here ({first_line(ex)}); give -M device=cpu.") from ex
    return resolved


def resolve_precision(dtype: str, device: torch.device) -> Precision:
    """Return the precision for weights and activations.

    `auto` means bf16 on CUDA devices that support it and fp16 on others. On a CPU or MPS it means bf16 if that is clearly faster
    (`bf16_speedup`), and otherwise fp32. `4bit` stores weights in 4 bits and computes in the dtype that `auto` chooses.

    Raises:
        ConfigError: the name is unknown, or it is `4bit` and bitsandbytes is not installed.
    """
    named = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
    if dtype in named:
        return Precision(named[dtype], "asked for")
    if dtype == "4bit":
        if importlib.util.find_spec("bitsandbytes") is None:
            raise ConfigError(
                "dtype '4bit' needs the package bitsandbytes, which is not installed; run `pip install bitsandbytes` or use dtype=auto."
            )
        return Precision(resolve_precision("auto", device).dtype, "asked for", four_bit=True)
    if dtype != "auto":
        raise ConfigError(f"dtype '{visible(dtype, limit=80)}' is unknown; expected auto, {', '.join(named)} or 4bit.")
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported():
            return Precision(torch.bfloat16, "auto: CUDA device with bf16")
        return Precision(torch.float16, "auto: CUDA device without bf16")
    speedup = bf16_speedup(device.type)
    chosen = torch.bfloat16 if speedup >= _SPEEDUP_NEEDED else torch.float32
    return Precision(chosen, f"auto: bf16 matrix products measured {speedup:.1f} times as fast as fp32 on this {device.type}")


@functools.cache
def bf16_speedup(device_type: str, rows: int = 64, width: int = 1024) -> float:
    """Return how many times as fast as fp32 a bf16 product `[rows, width] @ [width, width]` is (best of 5 runs of 4 products).

    Where a bf16 run takes several times as long as fp32, no more are made: on CPUs without bf16 arithmetic, one takes half a second.
    """

    def best(dtype: torch.dtype, hopeless: float = float("inf")) -> float:
        left = torch.ones(rows, width, dtype=dtype, device=device_type)
        right = torch.ones(width, width, dtype=dtype, device=device_type)
        _ = (left @ right)[0, 0].item()  # the first product prepares the kernels
        fastest = float("inf")
        for _ in range(5):
            start = time.perf_counter()
            for _ in range(4):
                result = left @ right
            result[0, 0].item()
            fastest = min(fastest, time.perf_counter() - start)
            if fastest > hopeless:
                break
        return fastest

    fp32 = best(torch.float32)
    return fp32 / best(torch.bfloat16, hopeless=_HOPELESS * fp32)
