"""`nla export`: a pair of adapters as full checkpoints in the public reference's layout, which its client can load.

Each role becomes a transformers folder with the adapter merged in (the sum is made in float32), the tokenizer and `nla_meta.yaml`;
the AR holds only its first K + 1 blocks, and its head in `value_head.safetensors`.
"""

import copy
import shutil
from pathlib import Path

import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import Tensor, nn

from nla.models.adapters import CONFIG_FILE, load_adapter, shared_copy
from nla.models.loaded import LoadedModel
from nla.pair.contract import Role, check_sidecar, read_sidecar, write_sidecar
from nla.pair.known import base_model, role_folder
from nla.pair.reconstructor import HEAD_FILE, read_head
from nla.support.errors import ContractError, DataError


def export_pair(pair: str, out: Path, *, dtype: str = "auto", device: str = "cpu") -> list[Path]:
    """Write `out/av` and `out/ar`.

    Args:
        pair: alias or folder of a pair of adapters.
        out: folder that does not exist yet, or is empty.
        dtype: of the written weights.
        device: where the sum is made.

    Raises:
        ContractError: the pair is broken, is of another model, or is a full checkpoint already.
        DataError: `out` is in use, or cannot be written.
    """
    if out.exists() and any(out.iterdir()):
        raise DataError(f"{out} is not empty; give a new folder.")
    scratch = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        roles: tuple[Role, ...] = ("av", "ar")
        for role in roles:
            _export_role(pair, role, scratch / role, dtype, device)
        if out.exists():
            out.rmdir()
        scratch.replace(out)
    except OSError as ex:
        raise DataError(f"the pair cannot be written to {out}: {ex.strerror or ex}.") from ex
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return [out / role for role in roles]


def export_role(pair: str, role: Role, out: Path, dtype: str = "auto", device: str = "cpu") -> None:
    """Write one role of a pair as a full checkpoint into a new folder, which appears whole.

    Raises:
        ContractError: the role is broken, is of another model, or is a full checkpoint already.
    """
    scratch = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    _export_role(pair, role, scratch, dtype, device)
    scratch.replace(out)


def _export_role(pair: str, role: Role, out: Path, dtype: str, device: str) -> None:
    folder = role_folder(pair, role)
    sidecar = read_sidecar(folder)
    if not (folder / CONFIG_FILE).is_file():
        raise ContractError(f"{folder} holds no adapter ({CONFIG_FILE}): it is a full checkpoint already, or no checkpoint.")
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


def _merge(view: LoadedModel, plain: nn.Module) -> None:
    """Add a view's adapter to the weights of a plain copy of its network."""
    targets = dict(plain.named_modules())
    with torch.no_grad():
        for name, module in view.network.named_modules():
            if isinstance(module, LoraLayer):
                layer = targets[name]
                assert isinstance(layer, nn.Linear)
                a, b = (one["default"].weight for one in (module.lora_A, module.lora_B))
                assert isinstance(a, Tensor)
                assert isinstance(b, Tensor)
                delta = (b.float() @ a.float()) * module.scaling["default"]
                layer.weight.data = (layer.weight.float() + delta).to(layer.weight.dtype)
