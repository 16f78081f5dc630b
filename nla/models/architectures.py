"""Where each supported architecture keeps its decoder blocks, embedding and final norm. A new family needs one more row in the table.

Every family in the table keeps a single residual stream `[batch, pos, d_model]` between its blocks. Gemma 3n does not (its blocks exchange
four streams), and the small Gemma 4 models (E2B, E4B) look up a second embedding per layer from the token ids, so that a vector cannot
replace a token. Both are refused.
"""

from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from nla.kernels.rotary import rope_switch
from nla.support.display import visible
from nla.support.errors import ModelError


@dataclass(frozen=True)
class Architecture:
    """Dotted paths from the causal language model to the modules that the harness reads or hooks.

    The *output* of the embedding module enters block 0, so a scale that the model applies to embeddings (Gemma: sqrt(d_model)) is
    included for every row of the table.
    """

    blocks: str
    embedding: str
    final_norm: str
    restarts_at_switch: bool = False
    """Whether transformers recomputes a whole sequence when it grows past the length where longrope changes its frequencies.
    Other models keep the keys that they computed with the earlier frequencies."""


_LLAMA_LIKE = Architecture("model.layers", "model.embed_tokens", "model.norm")
_WITH_IMAGES = Architecture("model.language_model.layers", "model.language_model.embed_tokens", "model.language_model.norm")

ARCHITECTURES: dict[str, Architecture] = {
    "llama": _LLAMA_LIKE,
    "mistral": _LLAMA_LIKE,
    "qwen2": _LLAMA_LIKE,
    "qwen3": _LLAMA_LIKE,
    "qwen3_moe": _LLAMA_LIKE,
    "olmo2": _LLAMA_LIKE,
    "olmo3": _LLAMA_LIKE,
    "phi3": Architecture("model.layers", "model.embed_tokens", "model.norm", restarts_at_switch=True),  # Phi-3, Phi-3.5 and Phi-4
    "gemma2": _LLAMA_LIKE,
    "gemma3_text": _LLAMA_LIKE,
    "gemma3": _WITH_IMAGES,
    "gemma4_text": _LLAMA_LIKE,
    "gemma4": _WITH_IMAGES,
    "gpt2": Architecture("transformer.h", "transformer.wte", "transformer.ln_f"),
    "gpt_neox": Architecture("gpt_neox.layers", "gpt_neox.embed_in", "gpt_neox.final_layer_norm"),
}
"""Supported architectures, by the `model_type` of a model's config."""


def default_layer(n_layers: int) -> int:
    """Return the layer at two thirds of the depth, where the released NLAs read (48 blocks: 32; 80: 53; 30: 20)."""
    return round(n_layers * 2 / 3)


def keep_first_blocks(config: Any, n_blocks: int) -> None:
    """Change the config of a text model to that of its first blocks."""
    config.num_hidden_layers = n_blocks
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:n_blocks]


def architecture_of(model_type: str) -> Architecture:
    """Return the row of the table for a config's `model_type`.

    Raises:
        ModelError: the architecture is not in the table.
    """
    try:
        return ARCHITECTURES[model_type]
    except KeyError:
        known = ", ".join(sorted(ARCHITECTURES))
        raise ModelError(
            f"Architecture '{visible(model_type, limit=80)}' is not supported (supported: {known}). "
            "If its blocks keep one residual stream, add a row to nla/models/architectures.py."
        ) from None


def check_architecture(config: Any) -> None:
    """Refuse variants of a supported architecture that the harness would compute wrongly.

    Args:
        config: the model's config.

    Raises:
        ModelError: per-layer token embeddings, attention to later tokens, or longrope frequencies that differ between kinds of layers.
    """
    text = config.get_text_config()
    if getattr(text, "hidden_size_per_layer_input", None):
        raise ModelError(
            f"This {config.model_type} model looks up an embedding per layer from the token ids (hidden_size_per_layer_input="
            f"{text.hidden_size_per_layer_input}), so vectors cannot be injected into it; use a variant without (e.g. Gemma 4 31B)."
        )
    if getattr(text, "use_bidirectional_attention", None) not in (None, False, "vision"):
        raise ModelError(f"This {config.model_type} model attends to later tokens, so it cannot generate; use a causal language model.")
    try:
        rope_switch(text)
    except NotImplementedError as ex:
        raise ModelError(f"This {config.model_type} model uses {ex}, which is not supported; use another model.") from ex


def module_at(model: PreTrainedModel, path: str) -> nn.Module:
    """Return the submodule at a dotted path.

    Raises:
        ModelError: the model has no such module, so its row of the table does not fit.
    """
    try:
        return model.get_submodule(path)
    except AttributeError:
        raise ModelError(
            f"{type(model).__name__} has no module '{path}', which its model_type implies; correct its row in nla/models/architectures.py."
        ) from None
