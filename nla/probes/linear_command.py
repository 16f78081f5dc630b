"""`nla probe`: a linear probe for labelled texts of one's own, at every layer, with its nulls."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from nla.support.display import plain
from nla.support.errors import DataError
from nla.support.options import Device, DType, JsonOut

if TYPE_CHECKING:
    from nla.probes.linear import LinearProbeResult


def probe_command(
    model: Annotated[str, typer.Argument(help="An alias, an organism, a hub id or a folder.")],
    data: Annotated[Path, typer.Option(help="Rows with text, label, and document (texts of one are held out together).")],
    positive: Annotated[str | None, typer.Option(help="The label that is told from all others; default: the first row's.")] = None,
    skip: Annotated[int, typer.Option(help="Tokens at the beginning of a text that are not read.", min=0)] = 1,
    shuffles: Annotated[int, typer.Option(help="Refits on shuffled labels.", min=20, max=10_000)] = 100,
    json_out: JsonOut = None,
    device: Device = "auto",
    dtype: DType = "auto",
) -> None:
    """Fit a linear probe at every layer, cross-validated by document, beside refits on shuffled labels.

    Example: nla probe smollm2 --data texts.jsonl --positive evaluation
    """
    from nla.models.loaded import load_model
    from nla.probes.concepts import passage_means
    from nla.probes.linear import probe_layers, read_labelled
    from nla.support.json_output import write_json
    from nla.support.locks import output_lock

    rows = read_labelled(data)
    if not rows:
        raise DataError(f"{data} holds no row; expected rows with text and label.")
    with output_lock(json_out, "nla probe"):
        loaded = load_model(model, dtype=dtype, device=device)
        means = passage_means(loaded, [row.text for row in rows], skip)
        result = probe_layers(means, rows, positive or rows[0].label, shuffles)
        _print(model, result)
        if json_out is not None:
            write_json(json_out, result)


def _print(model: str, result: "LinearProbeResult") -> None:
    title = f"{model}: '{result.positive}' ({result.n_positive}) against {result.n_others} others, {result.n_documents} documents"
    table = Table("block", "AUROC, held-out documents", "shuffled labels: 95 % below", "p", title=plain(title))
    for layer in result.layers:
        mark = " best" if layer == result.best else ""
        table.add_row(f"{layer.layer}{mark}", f"{layer.auroc:.3f}", f"{layer.null:.3f}", f"{layer.p:.3f}")
    console = Console()
    console.print(table)
    console.print(
        plain(
            f"The best block has AUROC {result.best.auroc:.3f}; the best of all blocks on shuffled labels stays below "
            f"{result.best_null:.3f} in 95 % (p {result.best_p:.3f})."
        )
    )
