"""`audit readers`: every reader of vectors on one model's known groups, in one table."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from nla.support.display import plain
from nla.support.options import Device, DType, JsonOut

if TYPE_CHECKING:
    from nla.organisms.spectrum import ReaderResult, Spectrum


def readers_command(
    model: Annotated[str, typer.Argument(help="An organism (smollm2-aware), or any model: alias, hub id, folder.")],
    n: Annotated[int, typer.Option(help="Number of prompts.", min=10)] = 40,
    tokens: Annotated[int, typer.Option(help="Tokens per reply that verbalizers explain.", min=1)] = 2,
    layer: Annotated[int | None, typer.Option(help="Block whose output is read; default: two thirds of the depth.", min=0)] = None,
    pair: Annotated[str | None, typer.Option("--nla", help="The NLA: a folder or hub id; default: the base's own.")] = None,
    sae: Annotated[Path | None, typer.Option(help="Folder of a sparse autoencoder; default: the one that ships for the base.")] = None,
    oracle: Annotated[Path | None, typer.Option(help="Folder of an oracle that `nla oracle train` made; default: none.")] = None,
    contexts: Annotated[Path | None, typer.Option(help="Paired contexts of your own: rows with family, evaluation, deployment.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="Requests of your own: rows with `prompt`.")] = None,
    json_out: JsonOut = None,
    device: Device = "auto",
    dtype: DType = "auto",
) -> None:
    """Read the same vectors with every reader, from labelled vectors to open descriptions, and compare what each buys.

    Example: audit readers smollm2-aware --json readers.json
    """
    from nla.models.chat_template import require_chat_template
    from nla.models.loaded import load_model
    from nla.organisms.spectrum import read_spectrum
    from nla.support.json_output import write_json
    from nla.support.locks import output_lock

    console = Console(stderr=True)
    with output_lock(json_out, "audit readers"):
        loaded = load_model(model, dtype=dtype, device=device)
        require_chat_template(loaded.tokenizer, model)
        spectrum = read_spectrum(
            loaded,
            n=n,
            tokens=tokens,
            layer=layer,
            pair=pair,
            sae=sae,
            oracle=oracle,
            contexts=contexts,
            prompts=prompts,
            say=lambda step: console.print(plain(step, "dim")),
        )
        _print(model, spectrum)
        if json_out is not None:
            write_json(json_out, spectrum)


def _print(name: str, spectrum: "Spectrum") -> None:
    table = Table("reader", "AUROC", "95 % interval", "labels", "seconds per 1,000", "MB", title=plain(f"{name}: readers on known groups"))
    ordered = sorted(spectrum.readers.items(), key=lambda item: -item[1].auroc.estimate)
    for reader, result in ordered:
        table.add_row(plain(reader), *_cells(result))
    console = Console()
    console.print(table)
    console.print(
        plain(
            f"Identical replies to {spectrum.n} prompts under paired contexts of held-out families, block {spectrum.layer}. Labels: "
            f"examples a reader was fitted on. Verbalizers explain {spectrum.tokens} tokens per reply, others read every token. "
            "Seconds: per 1,000 vectors, for follow_up per 1,000 conversations, without fitting."
        )
    )


def _cells(result: "ReaderResult") -> list[str]:
    area = result.auroc
    memory = "" if result.megabytes is None else f"{result.megabytes:.0f}"
    return [f"{area.estimate:.2f}", f"{area.low:.2f} to {area.high:.2f}", str(result.labels), f"{result.seconds_per_1000:.1f}", memory]
