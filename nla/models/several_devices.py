"""A model whose blocks are spread over several GPUs (`-M device_map=auto`), because one GPU cannot hold them.

Embedding, final norm and unembedding stay on the first GPU, so that inputs and logits are there. Before a block runs, its inputs move to
the block's GPU. Module hooks without state of their own do that; a copy of the module tree (`nla.models.adapters.shared_copy`) keeps them.
The hooks of accelerate, with which every copy would run the original modules, are removed after loading.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from nla.models.architectures import Architecture, module_at
from nla.support.errors import ConfigError

_KEPT_FREE = 0.25
"""Share of each GPU's free memory that is not given to weights: keys and values, activations, and the adapters of an NLA need it."""


def device_map(config: Any, architecture: Architecture, bytes_each: float, free: Sequence[int]) -> dict[str, int]:
    """Return the GPU that each part of a model goes to, in the form that transformers takes.

    Args:
        config: the model's config.
        architecture: its row of the architecture table.
        bytes_each: bytes per parameter.
        free: free memory of each GPU in bytes.

    Raises:
        ConfigError: the GPUs together cannot hold the model.
    """
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(config)
    blocks = module_at(skeleton, architecture.blocks)
    sizes = [bytes_each * sum(p.numel() for p in block.parameters()) for block in blocks.children()]
    others = bytes_each * sum(p.numel() for p in skeleton.parameters()) - sum(sizes)
    places = split(sizes, others, [(1 - _KEPT_FREE) * amount for amount in free])
    placed = {f"{architecture.blocks}.{block}": gpu for block, gpu in enumerate(places)}
    return dict.fromkeys(_beside(skeleton, architecture.blocks), 0) | placed


def split(sizes: Sequence[float], others: float, room: Sequence[float]) -> list[int]:
    """Return the GPU of each block: neighbours together, and each GPU filled in proportion to its room.

    Args:
        sizes: bytes of each block.
        others: bytes of everything else, which goes to the first GPU.
        room: bytes that each GPU has for weights.

    Raises:
        ConfigError: there is too little room.
    """
    left = [max(room[0] - others, 0.0), *room[1:]]
    needed, share = sum(sizes), 0.0
    if others > room[0] or needed > sum(left):
        raise ConfigError(
            f"The model needs {(needed + others) / 2**30:.1f} GiB for its weights, and the {len(room)} GPUs have room for "
            f"{sum(room) / 2**30:.1f} GiB beside activations. The first GPU must hold embedding and unembedding "
            f"({others / 2**30:.1f} GiB), and has room for {room[0] / 2**30:.1f} GiB. Use more or larger GPUs, or -M dtype=4bit."
        )
    ends = [end / sum(left) for end in itertools.accumulate(left)]
    places = []
    for size in sizes:
        middle = (share + size / 2) / needed
        places.append(next((gpu for gpu, end in enumerate(ends) if middle <= end), len(room) - 1))
        share += size
    return places


def _beside(root: nn.Module, blocks: str, prefix: str = "") -> list[str]:
    """Return the names of the largest parts of a model that hold none of its blocks."""
    names = []
    for name, child in root.named_children():
        path = f"{prefix}{name}"
        if path == blocks:
            continue
        names += _beside(child, blocks, f"{path}.") if blocks.startswith(f"{path}.") else [path]
    return names


def devices_of(network: nn.Module) -> list[torch.device]:
    """Return the devices that hold a network's parameters, in order."""
    return sorted({parameter.device for parameter in network.parameters()}, key=lambda device: (device.type, device.index or 0))


def send_along(network: PreTrainedModel, architecture: Architecture) -> None:
    """Make inputs move to the device of the block, or of the part beside the blocks, that is about to run."""
    from accelerate.hooks import remove_hook_from_submodules

    remove_hook_from_submodules(network)
    parts = [module_at(network, name) for name in _beside(network, architecture.blocks)]
    for module in (*module_at(network, architecture.blocks).children(), *parts):
        module.register_forward_pre_hook(_to_own_device, with_kwargs=True)


def _to_own_device(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    tensor = next(itertools.chain(module.parameters(), module.buffers()), None)
    return None if tensor is None else (_moved(args, tensor.device), _moved(kwargs, tensor.device))


def _moved(value: Any, device: torch.device) -> Any:
    """Return tensors on a device, also those in tuples, lists and dictionaries; everything else, such as a cache, as it is."""
    if isinstance(value, Tensor):
        return value if value.device == device else value.to(device)
    if isinstance(value, tuple | list):
        return type(value)(_moved(item, device) for item in value)
    if isinstance(value, dict):
        return {name: _moved(item, device) for name, item in value.items()}
    return value
