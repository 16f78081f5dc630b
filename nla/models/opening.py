"""Checks of a model's files before and while libraries read them.

A model folder is untrusted data. Its config determines how much memory is allocated, and libraries raise many kinds of exceptions on
damaged files. Therefore sizes are checked first, and every exception becomes a `HarnessError`.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from nla.models.gguf_header import check_gguf
from nla.models.sources import ModelSource, unreadable
from nla.support.errors import HarnessError, ModelError

_LIMITS = {
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "max_window_layers", "num_kv_shared_layers"), 2_048),
    **dict.fromkeys(
        ("num_attention_heads", "num_key_value_heads", "n_head", "num_experts", "num_local_experts", "n_routed_experts"), 16_384
    ),
    **dict.fromkeys(("hidden_size", "n_embd", "intermediate_size", "moe_intermediate_size", "n_inner", "head_dim", "image_size"), 2**21),
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), 2**24),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "sliding_window"), 2**30),
}
"""Largest value of each size in a config: far above every released model, and small enough that the module tree can be built."""
_SPARE_TOKENS = 64
"""A tokenizer may have this many more tokens than the embedding has rows: some fine-tuned models add padding tokens without a row."""


@contextmanager
def opening(source: ModelSource) -> Iterator[None]:
    """Convert any exception that a library raises while it reads a model to a `ModelError` or `FetchError` (see `unreadable`).

    Raises:
        ModelError: a local model cannot be read.
        FetchError: a hub model cannot be read or fetched.
    """
    try:
        yield
    except HarnessError:
        raise
    except MemoryError as ex:
        raise ModelError(f"There is not enough memory to load {source}; use a smaller model, or -M dtype=bfloat16 or dtype=4bit.") from ex
    except Exception as ex:
        raise unreadable(source, ex) from ex
    except BaseException as ex:
        if type(ex).__name__ != "PanicException":  # how the tokenizer library (Rust) reports damaged files
            raise
        raise unreadable(source, ex) from ex


def check_config(source: ModelSource, options: dict[str, Any]) -> str:
    """Check the sizes in a model's config before anything is built from it, and return its `model_type`.

    Args:
        source: the model.
        options: keyword arguments for `from_pretrained`.

    Raises:
        ModelError: the config is not an object, names no architecture, or holds a size out of range.
    """
    if source.gguf_file:
        check_gguf(Path(source.location) / source.gguf_file)
    config, _ = PreTrainedConfig.get_config_dict(source.location, **options)
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise ModelError(f"The config of {source} names no architecture; expected a JSON object with `model_type`. Give another model.")
    _check_sizes(source, config)
    return str(config["model_type"])


def _check_sizes(source: ModelSource, config: dict[str, Any], depth: int = 0) -> None:
    for key, value in config.items():
        if isinstance(value, dict) and depth < 4:
            _check_sizes(source, value, depth + 1)
        if key not in _LIMITS:
            continue
        for number in value if isinstance(value, list) else [value]:
            whole = isinstance(number, int) and not isinstance(number, bool)
            if number is not None and not (whole and 0 <= number <= _LIMITS[key]):
                raise ModelError(
                    f"The config of {source} has {key}={str(number)[:40]!r}; expected an integer of at most {_LIMITS[key]}. "
                    "Correct config.json, or give another model."
                )


def check_weights(source: ModelSource, config: PreTrainedConfig) -> None:
    """Check that a local folder's safetensors files hold as many numbers as its config needs, before memory is allocated.

    Tensors that are missing would otherwise be filled with random numbers.

    Raises:
        ModelError: the files hold fewer numbers.
    """
    files = sorted(Path(source.location).glob("*.safetensors"))
    if not source.is_local or source.gguf_file or not files or getattr(config, "quantization_config", None):
        return
    held = 0
    for path in files:
        with safe_open(path, "pt") as file:
            held += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    with torch.device("meta"):
        needed = sum(parameter.numel() for parameter in AutoModelForCausalLM.from_config(config).parameters())
    if held < needed:
        raise ModelError(
            f"The weights in {source} hold {held:,} numbers, but its config describes a model of {needed:,}; "
            "expected the complete weights of that config. Download or save the model again."
        )


def check_loaded(source: ModelSource, network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, missing: Iterable[str]) -> None:
    """Check that a loaded model is complete and that its tokenizer fits it.

    Args:
        source: the model.
        network: the loaded network.
        tokenizer: the loaded tokenizer.
        missing: names of the parameters that are in no file.

    Raises:
        ModelError: parameters are missing, or the tokenizer has token ids that the embedding does not have.
    """
    if names := sorted(missing):
        raise ModelError(
            f"The weights in {source} lack {len(names)} tensors that its config needs ({names[0]}), which would be filled with "
            "random numbers. Download or save the model again."
        )
    rows = cast(nn.Embedding, network.get_input_embeddings()).weight.shape[0]
    if len(tokenizer) > rows + _SPARE_TOKENS:
        raise ModelError(
            f"The tokenizer in {source} has {len(tokenizer)} tokens, but the model's embedding has {rows} rows, so they do not "
            "belong together. Give the model's own tokenizer files."
        )
