"""Two devices that exist only in name, for machines without GPUs: each tensor records which one it is on, the CPU computes everything, and
a function that is given tensors on different devices raises an error, as it does on GPUs.

Indices on the CPU may be used with any tensor, as on GPUs. So may scalars (tensors without dimensions), of which GPUs allow only those on
the CPU.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

FIRST, SECOND = torch.device("cuda", 0), torch.device("cuda", 1)
CPU = torch.device("cpu")
_INDEXED = (Tensor.__getitem__, Tensor.__setitem__)


class Placed(Tensor):
    """A tensor on the CPU that says it is on one of the devices."""

    place: torch.device

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunction():  # type: ignore[attr-defined]
            return _run(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """Also sees functions that are given no `Placed` tensor, such as `torch.zeros(..., device=...)`."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunction():  # type: ignore[attr-defined]
            return _run(func, args, kwargs or {})


@contextmanager
def two_devices() -> Iterator[None]:
    """Make `FIRST` and `SECOND` usable as devices inside a `with` block."""
    with _Functions():
        yield


def put(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor that says it is on `device`, and shares the given one's memory."""
    with torch._C.DisableTorchFunction():  # type: ignore[attr-defined]
        if device.type != FIRST.type:
            return tensor.as_subclass(Tensor)
        view = tensor.as_subclass(Placed)
        view.place = FIRST if device.index is None else device
        return view


def place_of(tensor: Tensor) -> torch.device:
    """Return the device that a tensor is on."""
    return tensor.place if isinstance(tensor, Placed) else tensor.device


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    if func == Tensor.device.__get__:  # type: ignore[attr-defined]
        return place_of(args[0])
    if func in (Tensor.to, Tensor.cpu):
        return _to(*args, **kwargs) if func is Tensor.to else _to(args[0], CPU)
    given = dict(kwargs)
    named = given.get("device") is not None and torch.device(given["device"]).type == FIRST.type
    asked = given.pop("device") if named else None
    device = _common_device(func, args, given)
    result = func(*args, **given)
    target = device if asked is None else torch.device(asked)
    return tree_map(lambda value: put(value, target) if isinstance(value, Tensor) else value, result)


def _common_device(func: Any, args: Any, kwargs: dict[str, Any]) -> torch.device:
    if func in _INDEXED:
        target, index, *values = args
        own = place_of(target)
        others = [value for value in tree_flatten(index)[0] if isinstance(value, Tensor) and place_of(value) != CPU]
        tensors = [target, *others, *(value for value in values if isinstance(value, Tensor) and value.dim() > 0)]
    else:
        tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor) and value.dim() > 0]
        own = next((place_of(tensor) for tensor in tensors), CPU)
    if len({place_of(tensor) for tensor in tensors}) > 1:
        raise RuntimeError(f"Expected all tensors to be on the same device, but {func} got {[str(place_of(t)) for t in tensors]}")
    return own


def _to(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Do what `Tensor.to` does, in each of its forms."""
    device = place_of(tensor)
    for value in (*args, *kwargs.values()):
        if isinstance(value, torch.dtype | Tensor):
            tensor = tensor.to(value if isinstance(value, torch.dtype) else value.dtype)
            device = place_of(value) if isinstance(value, Tensor) else device
        elif isinstance(value, str | torch.device):
            device = torch.device(value)
            tensor = tensor if device.type == FIRST.type else tensor.to(device)
    return put(tensor, device)


def place(module: torch.nn.Module, device: torch.device) -> None:
    """Move the parameters and buffers of a module, and of all modules in it, to one of the devices."""
    for part in module.modules():
        for held in (part._parameters, part._buffers):
            for name, tensor in held.items():
                if tensor is not None:
                    held[name] = put(tensor.detach(), device)  # type: ignore[assignment]
