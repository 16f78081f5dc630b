"""Where each supported architecture keeps its decoder blocks, embedding and final norm. A new family is one row."""

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from nla.support.errors import ModelError


@dataclass(frozen=True)
class Architecture:
    """Dotted paths from the causal language model to the modules the harness reads or hooks.

    The embedding module's *output* is what enters block 0, so a scale that the model applies to embeddings (Gemma:
    sqrt(d_model)) is inside it for every row of the table.
    """

    blocks: str
    embedding: str
    final_norm: str


_LLAMA_LIKE = Architecture("model.layers", "model.embed_tokens", "model.norm")

ARCHITECTURES: dict[str, Architecture] = {
    "llama": _LLAMA_LIKE,
    "mistral": _LLAMA_LIKE,
    "qwen2": _LLAMA_LIKE,
    "qwen3": _LLAMA_LIKE,
    "gemma2": _LLAMA_LIKE,
    "gemma3_text": _LLAMA_LIKE,
    "gemma3": Architecture("model.language_model.layers", "model.language_model.embed_tokens", "model.language_model.norm"),
    "gpt2": Architecture("transformer.h", "transformer.wte", "transformer.ln_f"),
    "gpt_neox": Architecture("gpt_neox.layers", "gpt_neox.embed_in", "gpt_neox.final_layer_norm"),
}
"""By the config's `model_type`."""


def architecture_of(model_type: str) -> Architecture:
    """The row for a config's `model_type`.

    Raises:
        ModelError: the architecture is not in the table.
    """
    try:
        return ARCHITECTURES[model_type]
    except KeyError:
        known = ", ".join(sorted(ARCHITECTURES))
        raise ModelError(
            f"architecture '{model_type}' is not supported (supported: {known}). "
            "If its blocks keep one residual stream, add a row to nla/models/architectures.py."
        ) from None


def module_at(model: PreTrainedModel, path: str) -> nn.Module:
    """The submodule at a dotted path.

    Raises:
        ModelError: the model has no such module, so its row in the table does not fit.
    """
    try:
        return model.get_submodule(path)
    except AttributeError:
        raise ModelError(
            f"{type(model).__name__} has no module '{path}' as its model_type implies; correct its row in nla/models/architectures.py."
        ) from None
