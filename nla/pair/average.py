"""`nla average`: a pair between two pairs of adapters, which often has some of each one's virtues (after Wortsman et al. 2022).

Each weight is (1 - share) of the first pair's and share of the second one's. This makes sense where one pair was trained from the other,
so that their weights lie near to each other; factors of adapters that were trained apart do not add up to anything.
"""

import shutil
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from nla.models.adapter_config import CONFIG_FILE, read_json_object
from nla.models.adapters import WEIGHTS_FILE
from nla.pair.contract import ROLES, read_sidecar, write_sidecar
from nla.pair.known import role_folder
from nla.pair.reconstructor import HEAD_FILE
from nla.support.errors import ContractError, first_line
from nla.support.files import replacing
from nla.support.new_folder import new_folder


def average_pairs(first: str, second: str, share: float, out: Path) -> list[Path]:
    """Write `out/av` and `out/ar`, with the first pair's dtype and settings. Sums are computed in float32.

    Args:
        first: alias or folder of a pair of adapters.
        second: another one, of the same base model, contract and adapter shapes.
        share: of the second pair, 0 to 1.
        out: folder that does not exist yet, or is empty.

    Raises:
        ContractError: a pair is broken or holds no adapters, or the two differ in anything but their weights.
        ConfigError: another process writes to `out`.
        DataError: `out` is not empty, or cannot be written.
    """
    with new_folder(out, "nla average") as folder:
        for role in ROLES:
            _average_role(role_folder(first, role), role_folder(second, role), share, folder / role)
    return [out / role for role in ROLES]


def _average_role(first: Path, second: Path, share: float, out: Path) -> None:
    sidecar, other = read_sidecar(first), read_sidecar(second)
    if replace(other, stage=sidecar.stage) != sidecar:
        raise ContractError(f"{first} and {second} have different contracts (nla_meta.yaml); only pairs of one contract can be averaged.")
    configs = [read_json_object(folder / CONFIG_FILE) for folder in (first, second)]
    if configs[0] != configs[1]:
        differing = sorted(name for name in configs[0] | configs[1] if configs[0].get(name) != configs[1].get(name))
        raise ContractError(f"The adapters in {first} and {second} differ in {', '.join(differing)}; expected adapters of one shape.")
    out.mkdir(parents=True)
    for name in (WEIGHTS_FILE, HEAD_FILE) if sidecar.role == "ar" else (WEIGHTS_FILE,):
        with replacing(out / name) as file:
            save_file(_between(_tensors(first / name), _tensors(second / name), share, second), file)
    shutil.copyfile(first / CONFIG_FILE, out / CONFIG_FILE)
    write_sidecar(out, sidecar)


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except Exception as ex:  # safetensors raises many kinds of exceptions
        raise ContractError(f"{path} cannot be read: {first_line(ex)}") from ex


def _between(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor], share: float, folder: Path) -> dict[str, torch.Tensor]:
    wrong = sorted(name for name in first.keys() | second.keys() if name not in first or name not in second)
    wrong = wrong or sorted(name for name in first if first[name].shape != second[name].shape)
    if wrong:
        raise ContractError(f"{len(wrong)} tensors in {folder} are not those of the first pair, e.g. {wrong[0]}.")
    return {name: torch.lerp(tensor.float(), second[name].float(), share).to(tensor.dtype) for name, tensor in first.items()}
