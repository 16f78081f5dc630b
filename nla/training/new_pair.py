"""What a new pair starts from: the contracts of its AV and AR, fresh adapters with seeded values, or the AV of an earlier pair."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from nla.models.adapters import adapter_parameters, load_adapter
from nla.models.chat_template import encode
from nla.models.loaded import LoadedModel
from nla.pair.contract import Marker, Sidecar, ar_prompt_ids, av_prompt_ids, check_sidecar, read_sidecar
from nla.pair.known import role_folder
from nla.support.errors import ConfigError, ContractError
from nla.support.seeds import seeded_generator
from nla.training.config import PairConfig


def seed_adapter(role: LoadedModel, seed: int) -> None:
    """Draw a fresh adapter's A matrices from a seeded generator, uniform in +-1/sqrt(fan_in), as peft does without a seed."""
    for index, parameter in enumerate(adapter_parameters(role)):
        if bool(parameter.any()):  # the B matrices are zero
            draws = seeded_generator("adapter", seed, index)
            bound = parameter.shape[1] ** -0.5
            parameter.data = torch.from_numpy(draws.uniform(-bound, bound, tuple(parameter.shape)).astype(np.float32)).to(parameter.device)


def continue_adapter(role: LoadedModel, start: str, sidecar: Sidecar) -> Path:
    """Load the adapter of an earlier pair's AV or AR into `role`, to be trained further. Return the folder that it was read from.

    Raises:
        ContractError: the earlier adapter has another layer, scale or prompt, and would have to unlearn that.
    """
    folder = role_folder(start, sidecar.role)
    earlier = read_sidecar(folder)
    for name in ("role", "layer", "injection_scale", "template"):
        if getattr(earlier, name) != getattr(sidecar, name):
            raise ContractError(
                f"{start} has {name} {getattr(earlier, name)!r}, but the config {getattr(sidecar, name)!r}, "
                f"so its {sidecar.role.upper()} cannot be continued."
            )
    load_adapter(role, folder, trainable=True)
    return folder


def sidecars(config: PairConfig, model: LoadedModel, layer: int) -> tuple[Sidecar, Sidecar]:
    """Return the contracts of a new pair's AV and AR, with the token ids of the model's own tokenizer.

    Where the config's injection scale is `median`, which only the training data tell, the AV's contract has the scale 1.

    Raises:
        ConfigError: the marker is not one token, or is not exactly once in the prompt.
    """
    tokenizer = model.tokenizer
    ids = encode(tokenizer, config.marker)
    if len(ids) != 1:
        raise ConfigError(
            f"the marker {config.marker!r} is {len(ids)} tokens in {model.source.name}'s tokenizer; choose a character that is one token."
        )
    harness = {"temperature": config.temperature, "max_tokens": config.max_tokens}
    if config.lines_without_repeats:
        harness["lines_without_repeats"] = config.lines_without_repeats
    draft = Sidecar(
        role="av",
        d_model=model.d_model,
        layer=layer,
        base_checkpoint=config.base_checkpoint,
        template=config.av_template,
        marker=Marker(config.marker, ids[0], -1, -1),
        injection_scale=1.0 if config.injection_scale == "median" else config.injection_scale,
        mse_scale=None,
        stage="sft",
        harness=harness,
    )
    prompt = av_prompt_ids(tokenizer, draft)
    at = [i for i, token in enumerate(prompt) if token == ids[0]]
    if len(at) != 1:
        raise ConfigError(f"the marker {config.marker!r} appears {len(at)} times in the AV's prompt, expected once; change av_template.")
    av = replace(draft, marker=Marker(config.marker, ids[0], prompt[at[0] - 1], prompt[at[0] + 1]))
    ar = replace(draft, role="ar", template=config.ar_template, marker=None, injection_scale=None, harness={})
    endings = [ar_prompt_ids(tokenizer, ar, text) for text in ('one "two"', "three four.")]
    n_same = next((n for n, (a, b) in enumerate(zip(*map(reversed, endings), strict=False)) if a != b), 0)
    ar = replace(ar, suffix_ids=tuple(endings[0][-min(n_same, 3) :]) if n_same else ())
    for sidecar in (av, ar):
        check_sidecar(sidecar, model)
    return av, ar
