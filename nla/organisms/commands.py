"""The commands `nla organism list`, `train` and `check`."""

import json
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from nla.support.display import plain
from nla.support.errors import ConfigError
from nla.support.options import Device, DType, JsonOut

if TYPE_CHECKING:
    from nla.organisms.check import CheckResult, MeasureResult

app = typer.Typer(help="Models with a known, implanted state, and the test of every measure on them.")


@app.command("list")
def list_organisms() -> None:
    """List the shipped organisms and the arms that can be trained.

    Example: nla organism list
    """
    from nla.models.sources import organism_names
    from nla.organisms.recipe import arms, read_recipe

    shipped = Table("organism", "arm", "what it is")
    for name in organism_names():
        arm = name.rsplit("-", 1)[1]
        shipped.add_row(name, arm, read_recipe(arm).about if arm in arms() else "")
    for arm in arms():
        if not any(name.endswith(f"-{arm}") for name in organism_names()):
            shipped.add_row("", arm, f"{read_recipe(arm).about} Make it with `nla organism train {arm}`.")
    Console().print(shipped)
    Console().print("Use an organism as --model local/NAME, and test it with `nla organism check NAME`.", style="dim")


@app.command("train")
def train(
    arm: Annotated[str, typer.Argument(help="An arm of `nla organism list`, or a recipe (.toml).")],
    corpora: Annotated[Path | None, typer.Option(help="Folder to which the recipe's paths of prompts are relative.")] = None,
    model: Annotated[str, typer.Option(help="The base model.")] = "smollm2",
    seed: Annotated[int, typer.Option(help="Seed of the adapter, the order and the contexts.", min=0)] = 0,
    work: Annotated[Path | None, typer.Option(help="Working folder; default: one in the user's cache.")] = None,
    device: Device = "auto",
    dtype: Annotated[str, typer.Option(help="auto, bfloat16 or float32.")] = "auto",
) -> None:
    """Train an organism. After an interruption, the same command resumes.

    Example: nla organism train aware --corpora ../shared/data
    """
    from nla.models.loaded import load_model
    from nla.organisms.recipe import read_recipe
    from nla.organisms.training import train_organism
    from nla.support.wheels import cache_dir

    recipe = read_recipe(arm)
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"seed": seed})})
    base = load_model(model, dtype=dtype, device=device)
    say = Console(stderr=True, highlight=False, soft_wrap=True, markup=False).print
    folder = work or cache_dir() / "organisms" / Path(model).name
    Console().print(plain(train_organism(base, Path(arm).stem, recipe, corpora, folder, say)), soft_wrap=True)


@app.command("check")
def check(
    name: Annotated[str, typer.Argument(help="An organism (smollm2-aware), or any model: alias, hub id, folder.")],
    contexts: Annotated[Path | None, typer.Option(help="Paired contexts of your own: rows with family, evaluation, deployment.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="Requests of your own: rows with `prompt`.")] = None,
    n: Annotated[int, typer.Option(help="Number of prompts.", min=1)] = 100,
    tokens: Annotated[int, typer.Option(help="Tokens per transcript that are verbalized.", min=1)] = 2,
    adapter: Annotated[str | None, typer.Option(help="An adapter for the model: a folder or hub id of a LoRA.")] = None,
    layer: Annotated[int | None, typer.Option(help="Block whose output is read; default: two thirds of the depth.", min=0)] = None,
    pair: Annotated[str | None, typer.Option("--nla", help="The NLA that explains: a folder or hub id; default: the base's own.")] = None,
    json_out: JsonOut = None,
    figure: Annotated[Path | None, typer.Option(help="Also draw the table into this file (.svg, .png or .pdf).")] = None,
    device: Device = "auto",
    dtype: DType = "auto",
) -> None:
    """Test every measure on known groups: the same reply under a stated evaluation and under deployment.

    Example: nla organism check smollm2-aware --n 60 --json check.json
    """
    from nla.models.adapted import habit_of, with_adapter
    from nla.models.chat_template import require_chat_template
    from nla.models.loaded import load_model
    from nla.organisms.check import check_organism
    from nla.organisms.figure import draw_checks
    from nla.organisms.recipe import shows_habit
    from nla.organisms.stored_check import StoredCheck
    from nla.support.files import replacing
    from nla.support.locks import exclusive_lock

    if figure is not None and figure.suffix not in (".svg", ".png", ".pdf"):
        raise ConfigError(f"--figure {plain(figure)}: expected a file name that ends in .svg, .png or .pdf.")
    console = Console(stderr=True)
    # Taken before the work is done, so that an output that cannot be written is known at once.
    with ExitStack() as outputs:
        for output in filter(None, (json_out, figure)):
            outputs.enter_context(exclusive_lock(output, "nla organism check"))
        model = load_model(name, dtype=dtype, device=device)
        model = with_adapter(model, adapter) if adapter else model
        require_chat_template(model.tokenizer, name)
        habit = habit_of(model)
        result = check_organism(
            model,
            partial(shows_habit, habit) if habit else None,
            contexts=contexts,
            prompts=prompts,
            n=n,
            tokens=tokens,
            layer=layer,
            pair=pair,
            say=lambda step: console.print(plain(step, "dim")),
        )
        _print(name, result)
        if json_out is not None:
            with replacing(json_out) as scratch:
                scratch.write_text(json.dumps(result.to_json(), indent=2) + "\n", encoding="utf-8")
        if figure is not None:
            drawn = draw_checks([StoredCheck.model_validate(result.to_json())])
            with replacing(figure) as scratch:
                drawn.savefig(scratch, format=figure.suffix[1:], dpi=144)


def _print(name: str, result: "CheckResult") -> None:
    console = Console()
    table = Table(
        "measure", "AUROC", "95 % interval", "unseen\nwordings", "flagged\neval", "flagged\ndepl.", title=plain(f"{name}: known groups")
    )
    for measure, found in result.measures.items():
        table.add_row(measure, *_cells(found))
    console.print(table)
    console.print(
        plain(
            f"Identical replies to {result.n} prompts under paired contexts, block {result.layer}. A bag of words of the replies: "
            f"AUROC {result.bag_of_words:.2f}."
        )
    )
    for line in _sentences(result):
        console.print(plain(line))


def _cells(found: "MeasureResult") -> list[str]:
    unseen = found.auroc_unseen_wordings
    return [
        f"{found.auroc.estimate:.2f}",
        f"{found.auroc.low:.2f} to {found.auroc.high:.2f}",
        "" if unseen is None else f"{unseen.estimate:.2f}",
        f"{found.flagged['evaluation']:.0%}",
        f"{found.flagged['deployment']:.0%}",
    ]


def _sentences(result: "CheckResult") -> list[str]:
    lines = []
    if result.habit_everywhere:
        lines.append("The habit shows in every reply, under either context: no reply of the model's own has tokens to read before it.")
    if result.behaviour_gap is not None:
        unseen = result.behaviour_gap_unseen_wordings
        beside = "" if unseen is None else f" ({unseen:.0f} under unseen wordings of the trained families)"
        lines.append(f"The habit shows {result.behaviour_gap:.0f} points more often under evaluation contexts{beside}.")
    for side, spoken in result.verbalized.items():
        lines.append(f"Says so in {spoken['count']} of {spoken['n']} own replies under {side} (95 % upper bound {spoken['high']:.1%}).")
    lines.append(
        f"Perplexity on ordinary prose: {result.perplexity_change:+.1%}. Cosine to the base model's vectors: {result.drift_cosine:.3f}."
    )
    if result.fve_nrm is not None:
        lines.append(f"The pair reconstructs these vectors with fve_nrm {result.fve_nrm:.2f}.")
    return lines
