"""Several roles on one base model in memory: copies that share its weights and carry low-rank adapters (LoRA) of their own.

A role (AV, AR) is a copy of the module tree whose parameters are the base model's own tensors, so it costs only its adapter. The
files are peft's (`adapter_config.json`, `adapter_model.safetensors`), which any peft user can load.
"""

import copy
import itertools
import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.lora import Linear as LoraLinear
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nla.models.architectures import module_at
from nla.models.loaded import LoadedModel, exclusive
from nla.support.errors import ContractError
from nla.support.files import replacing

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
_NAME = "default"


class AdapterSpec(BaseModel):
    """Shape of an adapter on all linear layers of the blocks. `first_ranks` are the ranks in the first blocks, where a vector
    injected as an embedding has to be made legible; scaling is alpha / rank = 2 everywhere."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rank: int = Field(default=32, ge=1)
    first_ranks: tuple[int, ...] = ()


def shared_copy(model: LoadedModel, n_blocks: int | None = None) -> LoadedModel:
    """A copy of the module tree over the same weights; with `n_blocks`, of the first blocks only.

    Neither changes what they share, so the copy has a lock of its own.
    """
    shared = {id(t): t for t in itertools.chain(model.network.parameters(), model.network.buffers())}
    network = copy.deepcopy(model.network, shared)
    for module in network.modules():  # hooks (steering, capture in progress) belong to the original
        module._forward_hooks.clear()
    role = LoadedModel(model.source, network, model.tokenizer, model.precision)
    if n_blocks is not None and n_blocks < model.n_layers:
        *parent, name = role.architecture.blocks.split(".")
        setattr(module_at(network, ".".join(parent)), name, nn.ModuleList(list(role.blocks)[:n_blocks]))
        role.text_config.num_hidden_layers = n_blocks
        if getattr(role.text_config, "layer_types", None):
            role.text_config.layer_types = role.text_config.layer_types[:n_blocks]
        del role.blocks
    return role


def add_adapter(role: LoadedModel, spec: AdapterSpec) -> None:
    """Put a fresh adapter (float32, zero effect) on every linear layer of a role's blocks, and make the role ready to train."""
    prefix = re.escape(role.architecture.blocks)
    names = sorted({name.rsplit(".", 1)[-1] for name, module in role.blocks.named_modules() if isinstance(module, nn.Linear)})
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


def _inject(config: LoraConfig, role: LoadedModel) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft warns of things that concern its own saving, which is not used
        inject_adapter_in_model(config, role.network, _NAME)
    uncast(role.network)
    role.network.peft_config = {_NAME: config}  # type: ignore[dict-item]
    for name, parameter in role.network.named_parameters():
        parameter.requires_grad_("lora_" in name)


def uncast(network: nn.Module) -> None:
    """Let autocast decide what an adapter's products run in: peft's own casting of activations up to float32 halves the speed."""
    for module in network.modules():
        if hasattr(module, "cast_input_dtype_enabled"):
            module.cast_input_dtype_enabled = False  # type: ignore[assignment]


def _prepare_training(role: LoadedModel) -> None:
    if role.device.type == "cpu":
        # The backward pass of fused attention took 37 ms a layer on short sequences where plain products take a few.
        role.network.set_attn_implementation("eager")


def adapter_parameters(role: LoadedModel) -> list[nn.Parameter]:
    """The parameters of a role's adapter, in a fixed order."""
    return [parameter for name, parameter in role.network.named_parameters() if "lora_" in name]


def save_adapter(network: nn.Module, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Write a network's adapter in peft's layout (weights first, under a temporary name)."""
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
    """Put the adapter of a folder on a role: float32 to train it, the base model's dtype to use it.

    Raises:
        ContractError: files missing or corrupt, or the adapter is of another model.
    """
    try:
        config = LoraConfig.from_pretrained(str(folder))
        tensors = load_file(folder / WEIGHTS_FILE)
    except (OSError, ValueError, TypeError, SafetensorError) as ex:
        raise ContractError(f"the adapter in {folder} cannot be read: {str(ex).splitlines()[0]}") from ex
    _inject(config, role)
    expected = get_peft_model_state_dict(role.network, adapter_name=_NAME, save_embedding_layers=False)
    wrong = [name for name in expected.keys() | tensors.keys() if name not in expected or name not in tensors]
    wrong += [name for name in expected.keys() & tensors.keys() if expected[name].shape != tensors[name].shape]
    if wrong:
        raise ContractError(
            f"the adapter in {folder} is of another model than {role.source.name}: {len(wrong)} tensors differ ({wrong[0]})."
        )
    set_peft_model_state_dict(role.network, tensors, adapter_name=_NAME)
    for parameter in adapter_parameters(role):
        parameter.data = parameter.data.to(torch.float32 if trainable else role.precision.dtype)
        parameter.requires_grad_(trainable)
    if trainable:
        _prepare_training(role)
    else:
        _speed_up(role)


def _speed_up(role: LoadedModel) -> None:
    """Let adapters that are only used, not trained, run without peft's own forward pass.

    A decoding step of a small model is hundreds of small calls, and peft makes nine a layer where two products do: with them the
    AV of the embedded model wrote 1.9 times as many tokens a second on two cores. The parameters stay peft's, so they can still
    be copied into and saved.
    """
    for module in role.network.modules():
        if isinstance(module, LoraLinear):
            module.forward = _lean_forward(module)  # type: ignore[method-assign, assignment]


def _lean_forward(module: LoraLinear) -> Callable[[Tensor], Tensor]:
    base, scale = module.base_layer, float(module.scaling[_NAME])
    a, b = (cast(nn.Linear, one[_NAME]) for one in (module.lora_A, module.lora_B))

    def forward(x: Tensor) -> Tensor:
        out: Tensor = base(x)
        low = nn.functional.linear(x, a.weight).flatten(0, -2)
        out.flatten(0, -2).addmm_(low, b.weight.T, alpha=scale)
        return out

    return forward
