"""`nla export`: write a pair of adapters as full checkpoints in the public reference's layout, which the reference's client can load.

Each role becomes a transformers folder with the adapter merged in (the sum is computed in float32), the tokenizer and `nla_meta.yaml`.
The AR holds only its first K + 1 blocks, and its head in `value_head.safetensors`.
"""

import copy
import json
from pathlib import Path

import torch
from peft.tuners.lora import LoraLayer
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from nla.models.adapters import CONFIG_FILE, load_adapter, shared_copy
from nla.models.loaded import LoadedModel
from nla.pair.contract import ROLES, Role, check_sidecar, read_sidecar, write_sidecar
from nla.pair.known import base_model, role_folder
from nla.pair.reconstructor import HEAD_FILE, read_head
from nla.support.errors import ContractError
from nla.support.files import scratch_folder
from nla.support.locks import exclusive_lock
from nla.support.new_folder import new_folder


def export_pair(pair: str, out: Path, *, dtype: str = "auto", device: str = "cpu") -> list[Path]:
    """Write `out/av` and `out/ar`.

    Args:
        pair: alias or folder of a pair of adapters.
        out: folder that does not exist yet, or is empty.
        dtype: of the written weights.
        device: where the adapters are merged.

    Raises:
        ContractError: the pair is broken, belongs to another model, or is a full checkpoint already.
        ConfigError: another process writes to `out`.
        DataError: `out` is not empty, or cannot be written.
    """
    with new_folder(out, "nla export") as folder:
        for role in ROLES:
            _export_role(pair, role, folder / role, dtype, device)
    return [out / role for role in ROLES]


def export_role(pair: str, role: Role, out: Path, dtype: str = "auto", device: str = "cpu") -> None:
    """Write one role of a pair as a full checkpoint into a folder, which appears whole; nothing is done if the folder is there.

    Raises:
        ContractError: the role is broken, belongs to another model, or is a full checkpoint already.
        DataError: `out` cannot be written.
    """
    with exclusive_lock(out, "merging an adapter", folder=False, blocking=True):
        if out.is_dir():
            return
        with scratch_folder(out.parent) as scratch:
            _export_role(pair, role, scratch / role, dtype, device)
            (scratch / role).replace(out)


def _export_role(pair: str, role: Role, out: Path, dtype: str, device: str) -> None:
    folder = role_folder(pair, role)
    sidecar = read_sidecar(folder)
    if not (folder / CONFIG_FILE).is_file():
        raise ContractError(f"{folder} holds no adapter ({CONFIG_FILE}): it is a full checkpoint already, or not a checkpoint.")
    base = base_model(sidecar, dtype=dtype, device=device)
    check_sidecar(sidecar, base)
    view = shared_copy(base, sidecar.layer + 1 if role == "ar" else None)
    plain = copy.deepcopy(view.network)
    load_adapter(view, folder)
    _merge(view, plain)
    out.mkdir(parents=True)
    plain.set_attn_implementation("sdpa")
    plain.save_pretrained(out)
    base.tokenizer.save_pretrained(out)
    write_sidecar(out, sidecar)
    if role == "ar":
        save_file({"weight": read_head(folder).contiguous()}, out / HEAD_FILE)
        write_index(out)


def write_index(folder: Path) -> None:
    """Write which file holds which of the network's tensors, unless it is there. Without it, vLLM takes the head's file for one of them."""
    index = folder / SAFE_WEIGHTS_INDEX_NAME
    if index.exists():
        return
    with safe_open(folder / SAFE_WEIGHTS_NAME, "pt") as file:
        names = sorted(file.keys())
    size = (folder / SAFE_WEIGHTS_NAME).stat().st_size
    described = {"metadata": {"total_size": size}, "weight_map": dict.fromkeys(names, SAFE_WEIGHTS_NAME)}
    index.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def _merge(view: LoadedModel, plain: nn.Module) -> None:
    """Add a view's adapter to the weights of a plain copy of its network."""
    targets = dict(plain.named_modules())
    with torch.no_grad():
        for name, module in view.network.named_modules():
            if isinstance(module, LoraLayer):
                layer = targets[name]
                assert isinstance(layer, nn.Linear)
                a, b = (factors["default"].weight for factors in (module.lora_A, module.lora_B))
                assert isinstance(a, Tensor)
                assert isinstance(b, Tensor)
                delta = (b.float() @ a.float()) * module.scaling["default"]
                layer.weight.data = (layer.weight.float() + delta).to(layer.weight.dtype)
