"""An oracle as a folder: the adapter in peft's layout, the sidecar of the AV it was made from, and what it was trained on."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from nla.models.adapters import load_adapter, save_adapter, shared_copy
from nla.models.loaded import LoadedModel
from nla.oracle.model import Oracle
from nla.pair.contract import check_sidecar, read_sidecar, write_sidecar
from nla.support.display import visible
from nla.support.errors import ContractError, first_line
from nla.support.files import replacing

META_FILE = "oracle.json"


@dataclass(frozen=True)
class OracleMeta:
    """What an oracle was trained on."""

    arm: str
    """What its adapter started from, and whether it was given vectors."""
    steps: int
    labels_by_family: dict[str, int] = field(default_factory=dict)
    """Questions that it was trained on."""


def save_oracle(folder: Path, oracle: Oracle, meta: OracleMeta) -> None:
    """Write an oracle's adapter, its sidecar and what it was trained on.

    Raises:
        DataError: a file cannot be written.
    """
    oracle.role.network.peft_config["default"].base_model_name_or_path = oracle.sidecar.base_checkpoint
    save_adapter(oracle.role.network, folder, torch.bfloat16)
    write_sidecar(folder, oracle.sidecar)
    with replacing(folder / META_FILE) as scratch:
        scratch.write_text(json.dumps(asdict(meta), indent=2) + "\n", encoding="utf-8")


def load_oracle(folder: Path, base: LoadedModel, layer: int | None = None) -> tuple[Oracle, OracleMeta]:
    """Read an oracle onto its base model.

    Args:
        folder: what `nla oracle train` wrote.
        base: the base model.
        layer: K of the vectors that will be asked about; None takes the oracle's own.

    Raises:
        ContractError: the folder holds no oracle, it does not fit the model, or it reads another layer.
    """
    try:
        meta = OracleMeta(**json.loads((folder / META_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as ex:
        raise ContractError(f"{visible(folder)} holds no oracle ({visible(first_line(ex))}); make one with `nla oracle train`.") from ex
    sidecar = read_sidecar(folder)
    check_sidecar(sidecar, base)
    if layer is not None and layer != sidecar.layer:
        raise ContractError(f"The oracle reads block {sidecar.layer}, but the vectors are of block {layer}; leave the layer out.")
    role = shared_copy(base)
    load_adapter(role, folder)
    return Oracle(role, sidecar), meta
