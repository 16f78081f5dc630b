"""Several roles (AV, AR) on one base model in memory: copies that share its weights, each with its own low-rank adapter (LoRA).

A role is a copy of the module tree whose parameters are the base model's tensors, so it needs additional memory only for its adapter.
The files have peft's layout (`adapter_config.json`, `adapter_model.safetensors`), so that anyone can load them with peft.
"""

import copy
import itertools
import json
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.lora import Linear as LoraLinear
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from nla.models.adapter_config import CONFIG_FILE, read_adapter_config
from nla.models.architectures import keep_first_blocks, module_at
from nla.models.loaded import LoadedModel, exclusive
from nla.support.display import visible
from nla.support.errors import ContractError, first_line
from nla.support.files import replacing

__all__ = ["CONFIG_FILE", "WEIGHTS_FILE", "AdapterSpec", "adapter_parameters", "add_adapter", "load_adapter", "save_adapter", "shared_copy"]

WEIGHTS_FILE = "adapter_model.safetensors"
_NAME = "default"
_WRAPPER = "base_model.model."


class AdapterSpec(BaseModel):
    """Shape of an adapter on all linear layers of the blocks. The scaling alpha / rank is 2 in every layer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rank: int = Field(default=32, ge=1)
    first_ranks: tuple[int, ...] = ()
    """Ranks in the first blocks. These blocks convert a vector that was injected as an embedding to a form that later blocks can use."""


def shared_copy(model: LoadedModel, n_blocks: int | None = None) -> LoadedModel:
    """Return a copy of the module tree over the same weights; with `n_blocks`, of the first blocks only.

    Neither the model nor the copy changes the shared weights, so the copy has its own lock.
    """
    shared = {id(t): t for t in itertools.chain(model.network.parameters(), model.network.buffers())}
    network = copy.deepcopy(model.network, shared)
    for module in network.modules():  # hooks (steering, a capture in progress) belong to the original only
        module._forward_hooks.clear()
    role = LoadedModel(model.source, network, model.tokenizer, model.precision)
    role.adapter, role.unadapted = model.adapter, model.unadapted  # the copied modules hold the adapter of a user's model
    if n_blocks is not None and n_blocks < model.n_layers:
        *parent, name = role.architecture.blocks.split(".")
        setattr(module_at(network, ".".join(parent)), name, nn.ModuleList(list(role.blocks)[:n_blocks]))
        keep_first_blocks(role.text_config, n_blocks)
        del role.blocks
    return role


def add_adapter(role: LoadedModel, spec: AdapterSpec) -> None:
    """Add a new adapter to every linear layer of a role's blocks (float32, initially without effect) and prepare the role for training."""
    prefix = re.escape(role.architecture.blocks)
    names = linear_names(role.blocks)
    ranks = {rf"^{prefix}\.{block}\..*": rank for block, rank in enumerate(spec.first_ranks)}
    config = LoraConfig(
        r=spec.rank,
        lora_alpha=2 * spec.rank,
        target_modules=names,
        rank_pattern=ranks,
        alpha_pattern={pattern: 2 * rank for pattern, rank in ranks.items()},
        task_type=None,
        base_model_name_or_path=role.source.location,
    )
    _inject(config, role)
    _prepare_training(role)


def linear_names(blocks: nn.Module) -> list[str]:
    """Return the names that the linear layers of the blocks have in them, which is what peft's `target_modules` lists."""
    return sorted({name.rsplit(".", 1)[-1] for name, module in blocks.named_modules() if isinstance(module, nn.Linear)})


def _inject(config: LoraConfig, role: LoadedModel, *, empty: bool = False) -> None:
    """Add an adapter's layers to a role. With `empty`, no memory is allocated for their weights yet."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft warns about its own saving of adapters, which this project does not use
        inject_adapter_in_model(config, role.network, _NAME, low_cpu_mem_usage=empty)
    uncast(role.network)
    role.network.peft_config = {_NAME: config}  # type: ignore[dict-item]
    for name, parameter in role.network.named_parameters():
        parameter.requires_grad_("lora_" in name)


def uncast(network: nn.Module) -> None:
    """Switch off peft's cast of all activations to float32, which halves the speed; autocast chooses the dtype of an adapter's products."""
    for module in network.modules():
        if hasattr(module, "cast_input_dtype_enabled"):
            module.cast_input_dtype_enabled = False  # type: ignore[assignment]


def _prepare_training(role: LoadedModel) -> None:
    if role.device.type == "cpu":
        # On short sequences, the backward pass of fused attention took 37 ms per layer, and that of plain products a few ms.
        role.network.set_attn_implementation("eager")


def adapter_parameters(role: LoadedModel) -> list[nn.Parameter]:
    """Return the parameters of a role's adapter, in a fixed order."""
    return [parameter for name, parameter in role.network.named_parameters() if "lora_" in name]


def save_adapter(network: nn.Module, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Write a network's adapter in peft's layout: first the weights, then the config. Each file is replaced in one step."""
    folder.mkdir(parents=True, exist_ok=True)
    config = cast(dict[str, Any], network.peft_config)[_NAME]
    state = get_peft_model_state_dict(network, adapter_name=_NAME, save_embedding_layers=False)
    tensors = {name: t.detach().to("cpu", dtype or t.dtype).contiguous() for name, t in state.items()}
    with replacing(folder / WEIGHTS_FILE) as scratch:
        save_file(tensors, scratch)
    described = {key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()}
    with replacing(folder / CONFIG_FILE) as scratch:
        scratch.write_text(json.dumps(described, indent=2, default=str) + "\n", encoding="utf-8")


@exclusive
def load_adapter(role: LoadedModel, folder: Path, *, trainable: bool = False) -> None:
    """Add the adapter in a folder to a role, in float32 if `trainable` and otherwise in the base model's dtype.

    Raises:
        ContractError: files are missing or damaged, the adapter is not a plain LoRA, or it belongs to another model.
    """
    shapes = _shapes(folder)
    config = read_adapter_config(folder, list(shapes))
    try:
        _inject(config, role, empty=True)
    except Exception as ex:  # peft raises many kinds of exceptions
        raise ContractError(f"The adapter in {visible(folder)} does not fit {role.source.name}: {visible(first_line(ex))}") from ex
    expected = get_peft_model_state_dict(role.network, adapter_name=_NAME, save_embedding_layers=False)
    wrong = sorted(name for name in expected.keys() | shapes.keys() if name not in expected or shapes.get(name) != [*expected[name].shape])
    if wrong:
        raise ContractError(
            f"The adapter in {visible(folder)} belongs to another model than {role.source.name}: {len(wrong)} tensors differ "
            f"({visible(wrong[0], limit=200)}). Give the adapter's own base model."
        )
    set_peft_model_state_dict(role.network, _tensors(folder), adapter_name=_NAME, low_cpu_mem_usage=True)
    for parameter in adapter_parameters(role):
        parameter.data = parameter.data.to(torch.float32 if trainable else role.precision.dtype)
        parameter.requires_grad_(trainable)
    if trainable:
        _prepare_training(role)
    else:
        _speed_up(role)


def _shapes(folder: Path) -> dict[str, list[int]]:
    """Return the shapes of the tensors in an adapter's weights file. Only the file's header is read.

    Names are those inside the network: `PeftModel.save_pretrained` puts `base_model.model.` before them.
    """
    with _reading(folder), safe_open(folder / WEIGHTS_FILE, "pt") as file:
        return {name.removeprefix(_WRAPPER): list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def _tensors(folder: Path) -> dict[str, Tensor]:
    with _reading(folder), safe_open(folder / WEIGHTS_FILE, "pt") as file:
        tensors: dict[str, Tensor] = {name.removeprefix(_WRAPPER): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        for name, tensor in tensors.items():
            if not tensor.is_floating_point() or not bool(tensor.float().isfinite().all()):
                raise ValueError(f"tensor {visible(name, limit=200)} does not hold finite floating-point numbers")
    return tensors


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as ex:
        raise ContractError(
            f"The adapter in {visible(folder)} cannot be read: {visible(first_line(ex))}. "
            f"Expected {CONFIG_FILE} and {WEIGHTS_FILE} as peft saves them; save or download the adapter again."
        ) from ex


def _speed_up(role: LoadedModel) -> None:
    """Replace peft's forward pass by a faster one in adapters that are used but not trained.

    A decoding step of a small model consists of hundreds of small operations. peft makes nine per layer, although two products are
    enough; with two, the AV of the embedded model wrote 1.9 times as many tokens per second on two cores. The parameters stay in peft's
    modules, so values can still be copied into them and saved.
    """
    for module in role.network.modules():
        if isinstance(module, LoraLinear):
            module.forward = _lean_forward(module)  # type: ignore[method-assign, assignment]


def _lean_forward(module: LoraLinear) -> Callable[[Tensor], Tensor]:
    base, scale = module.base_layer, float(module.scaling[_NAME])
    a, b = (cast(nn.Linear, side[_NAME]) for side in (module.lora_A, module.lora_B))

    def forward(x: Tensor) -> Tensor:
        out: Tensor = base(x)
        low = nn.functional.linear(x, a.weight).flatten(0, -2)
        out.flatten(0, -2).addmm_(low, b.weight.T, alpha=scale)
        return out

    return forward
