"""What training a pair of adapters needs on each device: memory by purpose, and arithmetic, before any weights are downloaded or trained.

Memory for activations is counted and not estimated by a rule of thumb: networks of one and of two blocks are built on torch's `meta`
device, which holds shapes but no values, an adapter is added, and what their forward passes keep for the gradient is summed. The
difference, times the number of blocks, gives the whole model's. Weights are the same on every device, because the trainer copies the
model to each and divides the batch.
"""

import copy
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from nla.models.adapters import AdapterSpec, linear_names
from nla.models.architectures import architecture_of, keep_first_blocks, module_at
from nla.models.sources import hub_id_of, resolve_source
from nla.support.errors import FetchError, ModelError, first_line
from nla.training.loss import CHUNK, PART

_SHAPES = Path(__file__).parent / "shapes.toml"
_TRAINED = 20
"""Bytes per trained parameter (float32): value, gradient, two moments of AdamW, and the sum over the parts of a batch."""
_EXCHANGED = 8
"""Bytes per trained parameter and process besides, where gradients are exchanged: their flat copy and its sum."""
_FOUR_BIT = 0.5 + 4 / 64
"""Bytes per weight of a linear layer in 4 bits: one float32 scale for 64 weights."""
_VOCABULARY = 10
"""Bytes per row and token id of the logits: probabilities in float32, their gradient, and both in the model's dtype."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a training run that decide its memory and arithmetic."""

    layer: int
    """K: the AR has blocks 0 to K."""
    av: AdapterSpec
    ar: AdapterSpec
    part: int = PART
    """Rows of a batch that are differentiated at a time."""
    tokens: int = 128
    """Longest row in tokens: the part of the prompt after the marker, and the explanation."""
    rollouts: int = 64
    """Explanations that are drawn at once, over all devices."""


@dataclass(frozen=True)
class Plan:
    """Bytes on each device in the last stage, reinforcement learning, which needs the most."""

    weights: int
    """The base model's, which all roles share."""
    adapters: int
    """Adapters and the AR's head, with gradients and optimiser; the frozen copies of the AV's adapter."""
    activations: int
    """What one part of a batch keeps for its gradient, of the AV or of the AR, whichever is more."""
    logits: int
    cache: int
    """Keys and values of the rollouts of one device."""

    @property
    def total(self) -> int:
        """The sum, without what the framework itself takes (about 1 GB on CUDA) and fragments (allow a tenth)."""
        return self.weights + self.adapters + self.activations + self.logits + self.cache

    def fits(self, memory: float) -> bool:
        """Return whether a device with so many bytes is enough, with 1 GB and a tenth in reserve."""
        return self.total * 1.1 + 1e9 <= memory


def config_of(name: str) -> PreTrainedConfig:
    """Return a model's config: from the configs in shapes.toml, a folder, or the hub. A multimodal model gives its text config.

    Raises:
        ModelError: the name is not known, or its family is not supported.
        FetchError: the config cannot be read from the folder or the hub.
    """
    source = resolve_source(name)
    known = tomllib.loads(_SHAPES.read_text(encoding="utf-8")).get(hub_id_of(source))
    if known is not None:
        listed: PreTrainedConfig = AutoConfig.for_model(**known)
        return listed
    try:
        config = AutoConfig.from_pretrained(source.location, revision=source.revision)
    except (OSError, ValueError) as ex:
        raise FetchError(f"The config of {source} cannot be read: {first_line(ex)}") from ex
    text: PreTrainedConfig = getattr(config, "text_config", None) or config
    return text


def plan_of(config: PreTrainedConfig, shape: Shape, *, dtype: str = "bfloat16", devices: int = 1) -> Plan:
    """Return what each device needs.

    Args:
        config: of the text model.
        shape: the sizes of the run.
        dtype: bfloat16, float16, float32, or 4bit (computed in bfloat16).
        devices: number of devices that share the batch.

    Raises:
        ModelError: the family is not supported, or the model has no block K.
    """
    n_layers, blocks = config.num_hidden_layers, shape.layer + 1
    if not 0 <= shape.layer < n_layers:
        raise ModelError(f"Layer {shape.layer} is out of range: the model has blocks 0 to {n_layers - 1}.")
    compute = torch.bfloat16 if dtype == "4bit" else getattr(torch, dtype)
    one_block, two_blocks = (_network(config, n, compute) for n in (1, 2))
    per_block = _numel(two_blocks) - _numel(one_block)
    width, per_weight = compute.itemsize, _FOUR_BIT if dtype == "4bit" else compute.itemsize
    weights = per_block * n_layers * per_weight + (_numel(one_block) - per_block) * width
    adapter = partial(_adapter_numel, one_block)
    trained = adapter(shape.av, n_layers) + adapter(shape.ar, blocks) + config.hidden_size**2
    adapters = trained * (_TRAINED + _EXCHANGED * (devices > 1)) + 2 * adapter(shape.av, n_layers) * width
    kept = max(_kept(config, n_layers, shape.av, shape, compute), _kept(config, blocks, shape.ar, shape, compute))
    rows = -(-shape.rollouts // devices)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    d_head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    cache = rows * shape.tokens * n_layers * 2 * heads * d_head * width
    return Plan(int(weights), int(adapters), kept, CHUNK * config.vocab_size * _VOCABULARY, cache)


def _network(config: PreTrainedConfig, n_layers: int, dtype: torch.dtype) -> PreTrainedModel:
    """Return a network with fewer blocks on the meta device."""
    small = copy.deepcopy(config)
    keep_first_blocks(small, n_layers)
    with torch.device("meta"):
        network: PreTrainedModel = AutoModelForCausalLM.from_config(small, dtype=dtype, attn_implementation="sdpa")
    return network


def _numel(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _blocks(network: PreTrainedModel) -> nn.Module:
    return module_at(network, architecture_of(network.config.model_type).blocks)


def _adapter_numel(one_block: PreTrainedModel, spec: AdapterSpec, n_blocks: int) -> int:
    """Return the number of parameters of an adapter on the first blocks of a model."""
    sides = sum(m.in_features + m.out_features for m in _blocks(one_block).modules() if isinstance(m, nn.Linear))
    ranks = [*spec.first_ranks[:n_blocks], *[spec.rank] * max(n_blocks - len(spec.first_ranks), 0)]
    return sides * sum(ranks)


def _kept(config: PreTrainedConfig, n_blocks: int, spec: AdapterSpec, shape: Shape, dtype: torch.dtype) -> int:
    """Return the bytes that a forward pass over one part keeps for the gradient."""
    by_one, by_two = (_kept_by(config, n, spec, shape, dtype) for n in (1, 2))
    return by_one + (n_blocks - 1) * (by_two - by_one)


def _kept_by(config: PreTrainedConfig, n_blocks: int, spec: AdapterSpec, shape: Shape, dtype: torch.dtype) -> int:
    network = _network(config, n_blocks, dtype)
    targets = linear_names(_blocks(network))
    inject_adapter_in_model(LoraConfig(r=spec.rank, lora_alpha=2 * spec.rank, target_modules=targets), network, low_cpu_mem_usage=True)
    for parameter in network.parameters():
        parameter.data = parameter.data.to(dtype)
    kept: dict[int, int] = {}
    of_parameters = {parameter.untyped_storage()._cdata for parameter in network.parameters()}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in of_parameters:
            kept[storage._cdata] = storage.nbytes()
            counted.append(storage)
        return tensor

    counted: list[Any] = []  # holds each storage, because the address of a freed one could be used again
    embeds = torch.empty(shape.part, shape.tokens, config.hidden_size, device="meta", dtype=dtype)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        decoder: Any = network.get_decoder()
        # A whole mask, because transformers looks into the values of any other, and there are none.
        mask = torch.empty(shape.part, 1, shape.tokens, shape.tokens, device="meta", dtype=torch.bool)
        decoder(inputs_embeds=embeds, attention_mask=mask, use_cache=False)
    return sum(kept.values())


def flops_per_step(config: PreTrainedConfig, shape: Shape, learn_from: float = 0.5) -> float:
    """Return the arithmetic of one step of reinforcement learning, in floating-point operations over all devices: two per
    weight, token and pass.

    Frozen weights need no gradient of their own, so a backward pass costs as much as a forward pass.

    Args:
        config: of the text model.
        shape: the sizes of the run.
        learn_from: share of the rollouts that the AV learns from.
    """
    one_block, two_blocks = (_network(config, n, torch.bfloat16) for n in (1, 2))
    per_block = _numel(two_blocks) - _numel(one_block)
    av = per_block * config.num_hidden_layers + config.hidden_size * config.vocab_size
    ar = per_block * (shape.layer + 1)
    passes: Sequence[float] = (av, 3 * learn_from * av, 2 * ar)  # drawing; AV, its gradient and the reference; AR and its gradient
    return 2.0 * sum(passes) * shape.rollouts * shape.tokens
