"""The commands `nla concepts fit`, `show` and `steer`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from nla.support.display import plain
from nla.support.errors import ConfigError
from nla.support.options import Device, DType, JsonOut

if TYPE_CHECKING:
    from nla.probes.concept_report import ConceptReport
    from nla.probes.concept_steering import WordChanges

app = typer.Typer(help="Concept vectors: directions of labelled passages (emotions, kinds of situation), and what they do.")
Layer = Annotated[int | None, typer.Option(help="Block whose output is reported; default: two thirds of the depth.", min=0)]


@app.command("fit")
def fit(
    model: Annotated[str, typer.Argument(help="An alias, an organism, a hub id or a folder.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the vectors.")],
    data: Annotated[str, typer.Option(help="emotions, awareness, or a file of rows with label and text.")] = "emotions",
    arm: Annotated[str | None, typer.Option(help="Passages to fit on: named (with the label's word) or banned.")] = None,
    neutral: Annotated[Path | None, typer.Option(help="Neutral passages: rows with text; default: the project's own.")] = None,
    skip: Annotated[int, typer.Option(help="Tokens at the beginning of a passage that are not read.", min=0)] = 1,
    share: Annotated[float, typer.Option(help="Share of neutral text's variance that is projected out.", min=0, max=0.99)] = 0.5,
    components: Annotated[int | None, typer.Option(help="Project out that many components instead.", min=0)] = None,
    layer: Layer = None,
    json_out: JsonOut = None,
    device: Device = "auto",
    dtype: DType = "auto",
) -> None:
    """Fit one vector per label and layer, and report how well held-out passages are told by them.

    Also writes a file of directions per label, with which an audit steers: `-M steer=FOLDER/directions/LABEL.safetensors:+0.1`.

    Example: nla concepts fit smollm2 -o emotions --json emotions.json
    """
    from nla.models.loaded import load_model
    from nla.probes.concept_report import FitSettings, fit_and_report
    from nla.support.json_output import write_json
    from nla.support.locks import exclusive_lock, output_lock

    console = Console(stderr=True)
    with exclusive_lock(out, "nla concepts fit", folder=True), output_lock(json_out, "nla concepts fit"):
        settings = FitSettings(data=data, arm=arm, neutral=neutral, skip=skip, share=share, components=components, layer=layer)
        report = fit_and_report(load_model(model, dtype=dtype, device=device), settings, out, lambda s: console.print(plain(s, "dim")))
        _print_report(report)
        if json_out is not None:
            write_json(json_out, report)


def _print_report(report: "ConceptReport") -> None:
    console = Console()
    title = f"{report.model}: {len(report.labels)} labels of {report.data}, arm {report.arm}, block {report.layer}"
    table = Table("held-out passages", "n", "own label first", "95 % interval", "mean rank of own label", "by chance", title=plain(title))
    for name, told in report.identified.items():
        interval = f"{told.low:.0%} to {told.high:.0%}"
        row = (f"{told.first / told.n:.0%}", interval, f"{told.mean_rank:.1f} of {told.n_labels}", f"{told.chance_rank:.1f}")
        table.add_row(plain(name), str(told.n), *row)
    console.print(table)
    for rating, test in report.ratings.items():
        console.print(
            plain(
                f"{rating}: component 1 explains {test.share:.0%} of the variance over labels at block {test.layer}; |r| = {test.r:.2f} "
                f"(permuted: at most {test.null_r:.2f} in 95 %). Best block {test.best_layer}: |r| = {test.best_r:.2f} (permuted, best "
                f"block of each: {test.null_best_r:.2f})."
            )
        )


@app.command("show")
def show(
    folder: Annotated[Path, typer.Argument(help="Folder that `nla concepts fit` wrote.")],
    layer: Layer = None,
    device: Device = "auto",
    dtype: DType = "auto",
) -> None:
    """Show the words that each vector stands for in the model's own vocabulary (logit lens), beside random directions.

    Example: nla concepts show emotions
    """
    from nla.probes.concept_report import opened
    from nla.probes.concept_tests import lenses

    model, concepts, _ = opened(folder, device=device, dtype=dtype)
    layer = model.check_layer(layer)
    table = Table("label", "nearest tokens", "rank of its word", "under random directions (median)", title=f"block {layer}")
    for lens in lenses(model, concepts, layer):
        table.add_row(plain(lens.label), plain(" ".join(map(repr, lens.top))), str(lens.own_rank), f"{lens.random_rank:.0f}")
    Console().print(table)


@app.command("steer")
def steer(
    folder: Annotated[Path, typer.Argument(help="Folder that `nla concepts fit` wrote.")],
    strengths: Annotated[str, typer.Option(help="Shares of the residual stream's mean norm.")] = "0.05,0.1,0.2,0.3",
    neutral: Annotated[Path | None, typer.Option(help="Passages whose perplexity bounds the strength; default: the project's own.")] = None,
    layer: Layer = None,
    json_out: JsonOut = None,
    device: Device = "auto",
    dtype: DType = "auto",
) -> None:
    """Add each vector while the model reads "He feels", and see whether its own word becomes likelier, more than by random directions.

    Example: nla concepts steer emotions --json steer.json
    """
    from nla.probes.concept_report import opened
    from nla.probes.concept_sets import read_neutral
    from nla.probes.concept_steering import word_changes
    from nla.support.json_output import write_json
    from nla.support.locks import output_lock

    console = Console(stderr=True)
    typed = _numbers(strengths)
    with output_lock(json_out, "nla concepts steer"):
        model, concepts, _ = opened(folder, device=device, dtype=dtype)
        layer = model.check_layer(layer)
        results = word_changes(model, concepts, layer, read_neutral(neutral), typed, lambda s: console.print(plain(s, "dim")))
        _print_changes(results, layer)
        if json_out is not None:
            write_json(json_out, {"layer": layer, "labels": concepts.labels, "results": results})


def _numbers(typed: str) -> list[float]:
    try:
        return [float(part) for part in typed.split(",")]
    except ValueError:
        raise ConfigError(f"--strengths is {typed!r}; expected numbers such as 0.1,0.2.") from None


def _print_changes(results: "list[WordChanges]", layer: int) -> None:
    from nla.probes.concept_steering import PERPLEXITY_BOUND, within_bound

    n = len(results[0].own)
    table = Table("prompt", "strength", "own word rises", "above all random", "own vector's rank", "perplexity x", title=f"block {layer}")
    for result in results:
        counts = (f"{result.n_rises} of {n}", f"{result.n_above_random} of {n}", f"{result.own_rank:.1f} of {n}")
        perplexity = f"{result.perplexity:.2f} (random {result.random_perplexity:.2f})"
        table.add_row(plain(f"{result.prompt} ___"), f"{result.strength:g}", *counts, perplexity)
    console = Console()
    console.print(table)
    best = within_bound(results)
    if not best:
        console.print(f"At every strength the median perplexity is above {PERPLEXITY_BOUND:g} times the unsteered one.")
        return
    rising = ", ".join(f"{result.n_rises} of {n} after '{result.prompt}'" for result in best)
    console.print(
        plain(f"Largest strength with at most {PERPLEXITY_BOUND:g} times the perplexity: {best[0].strength:g}; own word rises in {rising}.")
    )
