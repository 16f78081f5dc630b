"""A lens without labels: the tokens that a vector disposes the model to say, by the mean Jacobian from its block to the last one.

The vector goes through the mean Jacobian (`nla.activations.jacobian`), then through the final norm and the unembedding; the logit lens
leaves the first step out. Source: arXiv 2607.15495. The matrix is fitted by `nla lens fit`; that of the embedded model ships with the
project. `jacobian_lens:file=FILE` takes another.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from nla.activations.jacobian import MeanJacobian
from nla.activations.mean_vector import mean_vector
from nla.models.loaded import LoadedModel
from nla.pair.known import hub_id
from nla.support.display import visible
from nla.support.errors import ConfigError, ContractError, first_line
from nla.support.files import replacing
from nla.support.paths import user_path
from nla.verbalizers.logit_lens import LogitLens

SHIPPED = Path(__file__).parent / "lenses"
_KEY = "jacobian"


@dataclass(frozen=True)
class LensFile:
    """A fitted matrix with what it was fitted on."""

    base_checkpoint: str
    layer: int
    n_prompts: int
    halves_cosine: float
    matrix: Float[Tensor, "d_model d_model"]


def save_lens(path: Path, model: LoadedModel, layer: int, fitted: MeanJacobian) -> None:
    """Write a matrix in fp16, with the model, the layer and how far it has converged in the file's header.

    Raises:
        DataError: the file cannot be written.
    """
    header = {
        "base_checkpoint": hub_id(model),
        "layer": str(layer),
        "n_prompts": str(fitted.n_prompts),
        "halves_cosine": f"{fitted.halves_cosine:.4f}",
    }
    with replacing(path) as scratch:
        save_file({_KEY: fitted.matrix.to(torch.float16).contiguous()}, scratch, metadata=header)


def read_lens(path: Path) -> LensFile:
    """Read what `save_lens` wrote.

    Raises:
        ContractError: the file is missing or is no lens.
    """
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            matrix: Tensor = file.get_tensor(_KEY).float()
        layer, n_prompts, cosine = int(header["layer"]), int(header["n_prompts"]), float(header["halves_cosine"])
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as ex:
        raise ContractError(
            f"{visible(path)} is no Jacobian lens ({visible(first_line(ex))}); make one with `nla lens fit MODEL -o FILE`."
        ) from ex
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not bool(matrix.isfinite().all()):
        raise ContractError(f"{visible(path)} holds a matrix of shape {list(matrix.shape)}; expected a square one of finite numbers.")
    return LensFile(str(header.get("base_checkpoint", "")), layer, n_prompts, cosine, matrix)


def build(model: LoadedModel, layer: int | None, nla: str | None, file: str | None = None) -> LogitLens:
    """Make the Jacobian lens for vectors of `layer`; `nla` is ignored, because no trained pair is used.

    Args:
        model: the model whose vectors are read.
        layer: K; None takes two thirds of the depth.
        nla: not used.
        file: a lens of `nla lens fit`; None takes the one that ships for the model and layer.

    Raises:
        ConfigError: no lens is known for the model and layer.
        ContractError: the file is no lens, or belongs to another model or layer.
    """
    layer = model.check_layer(layer)
    lens = read_lens(user_path(file)) if file is not None else _shipped(model, layer)
    if (lens.layer, len(lens.matrix)) != (layer, model.d_model):
        raise ContractError(
            f"The lens is for (layer, width) {(lens.layer, len(lens.matrix))}, but {(layer, model.d_model)} of {model.source.name} is "
            "read; fit one with `nla lens fit`."
        )
    return LogitLens(model, mean_vector(model, layer), layer, "jacobian_lens", matrix=lens.matrix.to(model.device))


def _shipped(model: LoadedModel, layer: int) -> LensFile:
    lenses = [read_lens(path) for path in sorted(SHIPPED.glob("*.safetensors"))]
    known = next((lens for lens in lenses if lens.base_checkpoint == hub_id(model) and lens.layer == layer), None)
    if known is None:
        raise ConfigError(
            f"No Jacobian lens is known for layer {layer} of {model.source.name}; make one with `nla lens fit {model.source.name} --layer "
            f"{layer} -o FILE`, and give -T verbalizer=jacobian_lens:file=FILE."
        )
    return known
