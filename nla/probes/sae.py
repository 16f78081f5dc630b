"""Sparse autoencoders (TopK) of residual-stream vectors, and the file formats of two public libraries.

A vector x becomes at most k positive latents, the largest of relu(E (x - b) + c), and the reconstruction is b plus their decoder rows.
Source: Gao et al. 2024, "Scaling and evaluating sparse autoencoders". Formats, which both describe just this: sparsify (`cfg.json`,
`sae.safetensors`; ours too) and dictionary_learning (`config.json`, `ae.pt`, class AutoEncoderTopK).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from nla.models.loaded import LoadedModel
from nla.support.display import visible
from nla.support.errors import ConfigError, ContractError, first_line
from nla.support.files import replacing

Format = Literal["sparsify", "dictionary_learning"]
FORMATS: tuple[Format, ...] = ("sparsify", "dictionary_learning")
_SPARSIFY, _DICTIONARY = ("cfg.json", "sae.safetensors"), ("config.json", "ae.pt")
_CHUNK = 4_096
"""Vectors that are encoded at a time."""


@dataclass(frozen=True)
class Latents:
    """The active latents of some vectors."""

    ids: Int[Tensor, "n k"]
    values: Float[Tensor, "n k"]
    """Zero where fewer than k are positive."""


@dataclass(frozen=True, eq=False)
class SparseAutoencoder:
    """A TopK sparse autoencoder for raw vectors of one layer (float32)."""

    encoder: Float[Tensor, "n_latents d_model"]
    encoder_bias: Float[Tensor, " n_latents"]
    decoder: Float[Tensor, "n_latents d_model"]
    bias: Float[Tensor, " d_model"]
    k: int
    layer: int
    """K, the block (0-based) whose output it was trained on."""
    model: str = ""
    """Name or hub id of the model it was trained on; empty where the files do not say."""

    @property
    def n_latents(self) -> int:
        """Width of the dictionary."""
        return len(self.encoder)

    def check(self, model: LoadedModel, layer: int) -> None:
        """Refuse vectors that it was not trained on.

        Raises:
            ContractError: the model has another width, or another layer is read.
        """
        if (self.encoder.shape[1], self.layer) != (model.d_model, layer):
            raise ContractError(
                f"The sparse autoencoder is for (width, layer) {(self.encoder.shape[1], self.layer)}, but {(model.d_model, layer)} of "
                f"{model.source.name} is read. Train one with `nla sae train`, or read its layer."
            )

    def encode(self, vectors: Float[Tensor, "n d_model"]) -> Latents:
        """Return the active latents of raw vectors."""
        tops = [self._encode(part) for part in vectors.float().split(_CHUNK)]
        if not tops:
            return Latents(torch.zeros(0, self.k, dtype=torch.long), torch.zeros(0, self.k))
        return Latents(torch.cat([ids for ids, _ in tops]), torch.cat([values for _, values in tops]))

    def _encode(self, vectors: Float[Tensor, "n d_model"]) -> tuple[Int[Tensor, "n k"], Float[Tensor, "n k"]]:
        before = torch.relu((vectors - self.bias) @ self.encoder.T + self.encoder_bias)
        top = before.topk(self.k, dim=-1)
        return top.indices, top.values

    def decode(self, latents: Latents) -> Float[Tensor, "n d_model"]:
        """Return the vectors that latents stand for."""
        return self.bias + torch.einsum("nk,nkd->nd", latents.values, self.decoder[latents.ids])

    def fvu(self, vectors: Float[Tensor, "n d_model"]) -> float:
        """Return the fraction of the variance of raw vectors that the reconstruction leaves unexplained."""
        wide = vectors.float()
        parts = [wide[start : start + _CHUNK] for start in range(0, len(wide), _CHUNK)]
        error = sum(float((part - self.decode(self.encode(part))).square().sum()) for part in parts)
        return error / float((wide - wide.mean(dim=0)).square().sum())


def mean_latents(sae: SparseAutoencoder, vectors: Float[Tensor, "n d_model"]) -> Float[Tensor, " n_latents"]:
    """Return the mean activation of every latent over some raw vectors."""
    latents = sae.encode(vectors)
    total = torch.zeros(sae.n_latents)
    return total.index_add_(0, latents.ids.flatten(), latents.values.flatten()) / max(len(vectors), 1)


def save_sae(folder: Path, sae: SparseAutoencoder, form: Format = "sparsify", dtype: torch.dtype = torch.float16) -> None:
    """Write a sparse autoencoder into a folder, in the format of a public library.

    Raises:
        DataError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {"encoder.weight": sae.encoder, "encoder.bias": sae.encoder_bias, "b_dec": sae.bias}
    stored = {name: tensor.to(dtype).contiguous() for name, tensor in tensors.items()}
    rows = sae.decoder.to(dtype)
    names = _SPARSIFY if form == "sparsify" else _DICTIONARY
    with replacing(folder / names[1]) as scratch:
        if form == "sparsify":
            save_file(stored | {"W_dec": rows.contiguous()}, scratch)
        else:
            torch.save(stored | {"decoder.weight": rows.T.contiguous(), "k": torch.tensor(sae.k), "threshold": torch.tensor(-1.0)}, scratch)
    with replacing(folder / names[0]) as scratch:
        scratch.write_text(json.dumps(_config(sae, form), indent=2) + "\n", encoding="utf-8")


def _config(sae: SparseAutoencoder, form: Format) -> dict[str, Any]:
    d_model = sae.encoder.shape[1]
    if form == "sparsify":
        size = {"expansion_factor": sae.n_latents // d_model, "num_latents": sae.n_latents, "k": sae.k, "d_in": d_model}
        kind = {"activation": "topk", "normalize_decoder": True, "multi_topk": False, "skip_connection": False, "transcode": False}
        return size | kind | {"harness": {"model": sae.model, "layer": sae.layer}}
    trainer = {"trainer_class": "TopKTrainer", "dict_class": "AutoEncoderTopK", "activation_dim": d_model, "dict_size": sae.n_latents}
    return {"trainer": trainer | {"k": sae.k, "layer": sae.layer, "lm_name": sae.model}}


def read_sae(folder: Path, layer: int | None = None) -> SparseAutoencoder:
    """Read a sparse autoencoder in either format.

    Args:
        folder: its folder.
        layer: K; needed only where the files do not name it.

    Raises:
        ContractError: there is none, its files are damaged or of another kind than TopK, or shapes do not fit each other.
        ConfigError: the files do not name a layer, and none was given.
    """
    try:
        read = _from_sparsify if (folder / _SPARSIFY[0]).is_file() else _from_dictionary_learning
        sae = read(folder, layer)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as ex:
        raise ContractError(
            f"{visible(folder)} holds no TopK sparse autoencoder ({visible(first_line(ex))}); expected {' and '.join(_SPARSIFY)}, or "
            f"{' and '.join(_DICTIONARY)}."
        ) from ex
    n, d = sae.encoder.shape
    shapes = [list(tensor.shape) for tensor in (sae.encoder_bias, sae.decoder, sae.bias)]
    if shapes != [[n], [n, d], [d]] or not 0 < sae.k <= n:
        raise ContractError(f"{visible(folder)}: tensors of shapes {shapes} and k={sae.k} do not fit an encoder of shape {[n, d]}.")
    return sae


def _from_sparsify(folder: Path, layer: int | None) -> SparseAutoencoder:
    config = json.loads((folder / _SPARSIFY[0]).read_text(encoding="utf-8"))
    if config.get("activation", "topk") != "topk" or config.get("transcode") or config.get("skip_connection"):
        raise ValueError(f"activation {config.get('activation')}, transcode {config.get('transcode')}")
    tensors = {name: tensor.float() for name, tensor in load_file(folder / _SPARSIFY[1]).items()}
    own = config.get("harness", {})
    chosen = _layer(own.get("layer"), layer, folder)
    encoder, bias, decoder = (tensors[name] for name in ("encoder.weight", "encoder.bias", "W_dec"))
    return SparseAutoencoder(encoder, bias, decoder, tensors["b_dec"], int(config["k"]), chosen, own.get("model", ""))


def _from_dictionary_learning(folder: Path, layer: int | None) -> SparseAutoencoder:
    config = json.loads((folder / _DICTIONARY[0]).read_text(encoding="utf-8"))["trainer"]
    if config.get("dict_class", "AutoEncoderTopK") != "AutoEncoderTopK":
        raise ValueError(f"dict_class {config['dict_class']}")
    tensors = torch.load(folder / _DICTIONARY[1], map_location="cpu", weights_only=True)
    chosen = _layer(config.get("layer"), layer, folder)
    encoder, bias, decoder = (tensors[name].float() for name in ("encoder.weight", "encoder.bias", "decoder.weight"))
    k = int(tensors["k"] if "k" in tensors else config["k"])
    return SparseAutoencoder(encoder, bias, decoder.T.contiguous(), tensors["b_dec"].float(), k, chosen, str(config.get("lm_name", "")))


def _layer(named: object, given: int | None, folder: Path) -> int:
    if isinstance(named, int):
        return named
    if given is None:
        raise ConfigError(f"{visible(folder)} does not say which layer it was trained on; give it (--layer).")
    return given
