"""The activation reconstructor (AR): predicts the vector that an explanation was made from.

Blocks 0 to K of the base model, no final norm and no unembedding, then a bias-free [d_model, d_model] head in float32, read at
the last token of a plain-text prompt. Padding is on the right: attention is causal, so it is never seen.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from nla.activations.capture import block_output, shared_batch
from nla.models.adapters import CONFIG_FILE, load_adapter, shared_copy
from nla.models.loaded import LoadedModel, load_model
from nla.pair.contract import Sidecar, ar_prompt_ids, check_sidecar, read_sidecar
from nla.pair.known import base_model, role_folder
from nla.pair.metrics import mse_nrm
from nla.support.errors import ContractError, first_line

HEAD_FILE = "value_head.safetensors"


class Reconstructor:
    """An AR in memory.

    Args:
        model: the network that holds at least blocks 0 to K.
        head: [d_model, d_model]; the prediction is `head @ residual`.
        sidecar: the contract it was trained under.
    """

    def __init__(self, model: LoadedModel, head: Float[Tensor, "d_model d_model"], sidecar: Sidecar) -> None:
        check_sidecar(sidecar, model)
        if tuple(head.shape) != (sidecar.d_model, sidecar.d_model) or not bool(head.isfinite().all()):
            raise ContractError(f"the AR's head is {list(head.shape)} or not finite; expected [{sidecar.d_model}, {sidecar.d_model}].")
        self.model, self.sidecar = model, sidecar
        self.head = head.float().to(model.device)

    def reconstruct(self, explanations: Sequence[str], batch: int = 64) -> Float[Tensor, "n d_model"]:
        """Return predicted vectors (float32, on the CPU), in the order of the explanations. Only their directions carry meaning."""
        return self.model.run(partial(self._reconstruct, explanations, batch))

    @torch.no_grad()
    def _reconstruct(self, explanations: Sequence[str], batch: int) -> Float[Tensor, "n d_model"]:
        prompts = [ar_prompt_ids(self.model.tokenizer, self.sidecar, text) for text in explanations]
        out = torch.empty(len(prompts), self.sidecar.d_model)
        by_length = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))  # similar lengths together need little padding
        for start in range(0, len(by_length), batch):
            rows = by_length[start : start + batch]
            out[rows] = self._forward([prompts[i] for i in rows]).cpu()
        return out

    def score(self, vectors: Float[Tensor, "n d_model"], explanations: Sequence[str]) -> Float[Tensor, " n"]:
        """Return the mse_nrm of each explanation's prediction against the vector it explains (lower is better)."""
        predicted = self.reconstruct(explanations)
        return self.model.run(lambda: mse_nrm(vectors, predicted))

    def _forward(self, prompts: list[list[int]]) -> Float[Tensor, "n d_model"]:
        batch = shared_batch(self.model, prompts, self.sidecar.layer)
        stream = block_output(self.model, batch.ids, self.sidecar.layer, batch.before)
        last = stream[torch.arange(len(prompts)), batch.last]
        return last.float() @ self.head.T


def load_reconstructor(
    where: str | Path, base: LoadedModel | None = None, *, dtype: str = "auto", device: str = "auto", spread: bool = False
) -> Reconstructor:
    """Load an AR: a transformers folder of K + 1 blocks in the released layout, or an adapter of the base model; with head and sidecar.

    Args:
        where: folder (of the AR, or of a pair) or hub id.
        base: the base model, whose weights an adapter shares; None loads the one that the sidecar names if it is needed.
        dtype: of the blocks; the head is always float32, because bf16 heads gave NaN in practice.
        device: torch device name or `auto`.
        spread: see `load_model`.

    Raises:
        ContractError: no or broken sidecar, the role is not AR, head or adapter missing, corrupt or of the wrong shape.
        FetchError: the hub could not provide it.
        ModelError: the weights cannot be read.
    """
    folder = role_folder(where, "ar")
    sidecar = read_sidecar(folder)
    if sidecar.role != "ar":
        raise ContractError(f"{where} is an {sidecar.role.upper()}, expected an AR.")
    head = read_head(folder)
    if (folder / CONFIG_FILE).is_file():
        model = shared_copy(base or base_model(sidecar, dtype=dtype, device=device), sidecar.layer + 1)
        load_adapter(model, folder)
    else:
        model = load_model(str(folder), dtype=dtype, device=device, spread=spread)
    return Reconstructor(model, head, sidecar)


def read_head(folder: Path) -> Float[Tensor, "d_model d_model"]:
    """Read the head from an AR's folder, in float32.

    Raises:
        ContractError: missing, corrupt, or not one matrix.
    """
    try:
        tensors = load_file(folder / HEAD_FILE)
    except (OSError, SafetensorError) as ex:
        raise ContractError(f"{folder / HEAD_FILE} cannot be read: {first_line(ex)}") from ex
    if len(tensors) != 1:
        raise ContractError(
            f"{folder / HEAD_FILE} holds {len(tensors)} tensors ({', '.join(tensors)}); expected the one matrix of the head."
        )
    head: Tensor = next(iter(tensors.values()))
    return head.float()
