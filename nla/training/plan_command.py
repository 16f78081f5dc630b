"""The command `nla plan`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from nla.support.display import plain
from nla.support.options import JsonOut

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from nla.training.plan import Plan, Shape

_DTYPES = ("bfloat16", "4bit")


def plan_command(
    model: Annotated[str, typer.Argument(help="Alias, hub id or folder of a model, or a pair's config (.toml).", metavar="model <str>")],
    devices: Annotated[int, typer.Option(help="Devices that share the batch.", min=1)] = 1,
    memory: Annotated[float, typer.Option(help="Memory of each device in GB.", min=0.1)] = 80,
    steps: Annotated[int | None, typer.Option(help="Steps of reinforcement learning; default: the config's, or 1000.", min=1)] = None,
    tflops: Annotated[float, typer.Option(help="Arithmetic that a device sustains, in 10^12 operations per second.", min=0.001)] = 100,
    json_out: JsonOut = None,
) -> None:
    """Show what training a pair needs on each device: memory by purpose, and hours of reinforcement learning.

    Nothing is downloaded but a config. Hours are arithmetic alone: loading, evaluation and waiting come on top.

    Example: nla plan llama-8b --devices 4 --memory 80
    """
    from nla.support.json_output import write_json
    from nla.support.locks import output_lock
    from nla.training.plan import flops_per_step, plan_of

    name, config, shape, config_steps = _run_of(model)
    with output_lock(json_out, "nla plan"):
        plans = {dtype: plan_of(config, shape, dtype=dtype, devices=devices) for dtype in _DTYPES}
        _show(name, plans, devices, memory)
        chosen = steps or config_steps
        hours = chosen * flops_per_step(config, shape) / devices / (tflops * 1e12) / 3600
        Console().print(plain(f"{chosen} steps of {shape.rollouts} rollouts: {hours:.1f} hours at {tflops:g} TFLOP/s per device."))
        if json_out is not None:
            write_json(json_out, {"model": name, "devices": devices, "hours": hours, "bytes": plans})


def _run_of(model: str) -> "tuple[str, PreTrainedConfig, Shape, int]":
    """Return the model's name and config, the sizes of the run and its number of steps, from a pair's config or from defaults."""
    from nla.models.adapters import AdapterSpec
    from nla.models.architectures import default_layer
    from nla.training.config import read_config
    from nla.training.plan import Shape, config_of

    if not model.endswith(".toml"):
        config = config_of(model)
        layer = default_layer(config.num_hidden_layers)
        return model, config, Shape(layer=layer, av=AdapterSpec(rank=32, first_ranks=(128, 64)), ar=AdapterSpec(rank=32)), 1_000
    pair = read_config(Path(model))
    config = config_of(pair.model)
    layer = pair.data.layer if pair.data.layer is not None else default_layer(config.num_hidden_layers)
    rollouts = pair.rl.group * pair.rl.train.batch if pair.rl else pair.av.batch
    tokens = 32 + (pair.rl.max_tokens if pair.rl else pair.max_tokens)
    shape = Shape(layer=layer, av=pair.av_adapter, ar=pair.ar_adapter, tokens=tokens, rollouts=rollouts)
    return pair.model, config, shape, pair.rl.train.steps if pair.rl else pair.av.steps


def _show(name: str, plans: "dict[str, Plan]", devices: int, memory: float) -> None:
    each = f"each of {devices} devices" if devices > 1 else "one device"
    table = Table("GB", *plans, title=plain(f"{name}: {each} of {memory:g} GB"))
    for purpose in ("weights", "adapters", "activations", "logits", "cache", "total"):
        table.add_row(purpose, *(f"{getattr(plan, purpose) / 1e9:.2f}" for plan in plans.values()))
    table.add_row("fits", *("yes" if plan.fits(memory * 1e9) else "no" for plan in plans.values()))
    Console().print(table)
    if not any(plan.fits(memory * 1e9) for plan in plans.values()):
        Console().print(
            plain(
                "The weights are copied to every device and never divided, so more devices save only cache. The activations are those of "
                "a part of 16 rows; if memory runs out, the trainer halves the parts, one time only, on which this plan does not count. "
                "If half the activations are still too much, take a smaller base model."
            ),
            soft_wrap=True,
        )
