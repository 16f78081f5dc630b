"""The `nla` command: models on this machine, and the autoencoder's data, training, scoring and export."""

import time
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from nla.doctor.command import doctor_command
from nla.editing.command import edit_command
from nla.organisms.commands import app as organisms_app
from nla.probes.concept_commands import app as concepts_app
from nla.probes.linear_command import probe_command
from nla.readers.lens_command import app as lens_app
from nla.readers.oracle_commands import app as oracle_app
from nla.readers.sae_commands import app as sae_app
from nla.support.command import application, run
from nla.support.display import plain
from nla.support.options import Device, DType, JsonOut
from nla.training.plan_command import plan_command

if TYPE_CHECKING:
    from nla.training.evaluation import Score
    from nla.training.loop import Limits

app = application(
    """Natural language autoencoders and the models they read.

    Example: nla explain smollm2 --text "The capital of France is"
    """
)
models_app = typer.Typer()
app.add_typer(models_app, name="models")
app.add_typer(organisms_app, name="organism")
app.add_typer(concepts_app, name="concepts")
app.add_typer(lens_app, name="lens")
app.add_typer(oracle_app, name="oracle")
app.add_typer(sae_app, name="sae")
app.command("doctor")(doctor_command)
app.command("edit")(edit_command)
app.command("plan")(plan_command)
app.command("probe")(probe_command)


@models_app.callback(invoke_without_command=True)
def list_models(context: typer.Context) -> None:
    """List the model aliases; `fetch` gets their files.

    Example: nla models
    """
    if context.invoked_subcommand is not None:
        return
    from nla.models.sources import ALIASES, alias_state

    table = Table("alias", "hub id", "state")
    for name, alias in ALIASES.items():
        table.add_row(name, alias.hub_id, alias_state(alias))
    Console().print(table)
    Console().print("Use an alias as --model local/ALIAS; any hub id, folder or .gguf file works too.", style="dim")


@models_app.command("fetch")
def fetch_model(name: Annotated[str, typer.Argument(help="An alias of `nla models`, or a hub id.")]) -> None:
    """Fetch a model's files now, so that later runs need no network.

    Example: nla models fetch smollm2
    """
    from nla.models.sources import fetch_with_progress

    Console().print(plain(f"{name}: {fetch_with_progress(name)}"), soft_wrap=True)


_AV_SHARE, _AR_SHARE = 0.45, 0.25
"""Shares of the time that is left which `nla train all --minutes` gives to the AV's warm start and to the AR; RL gets the rest."""


class TrainStage(StrEnum):
    """Stages of `nla train`; `all` runs every stage in order."""

    AV = "av"
    SAMPLES = "samples"
    AR = "ar"
    RL = "rl"
    ALL = "all"


ConfigPath = Annotated[Path, typer.Argument(help="The pair's config, a TOML file such as nla/pairs/smollm2.toml.")]
CorporaBase = Annotated[Path | None, typer.Option("--corpora", help="Folder to which the config's corpus paths are relative.")]
WorkFolder = Annotated[
    Path | None, typer.Option("--work", help="Working folder; default: one in the user's cache, named after the config.")
]


@app.command("data")
def make_data(
    config: ConfigPath,
    corpora: CorporaBase = None,
    work: WorkFolder = None,
    teacher: Annotated[
        str | None, typer.Option(help="Source of training explanations: features (no LLM), or an Inspect model such as anthropic/MODEL.")
    ] = None,
    device: Device = "auto",
    dtype: DType = "auto",
) -> None:
    """Read activations and write training data. After an interruption, the same command resumes.

    Example: nla data nla/pairs/smollm2.toml --corpora ../shared/data
    """
    from nla.training.data.dead_lines import refuse_dead_lines
    from nla.training.data.shards import read_dataset

    out = _extract(config, corpora, work, teacher, device, dtype)
    refuse_dead_lines(read_dataset(out).explanations)


def _extract(config: Path, corpora: Path | None, work: Path | None, teacher: str | None, device: str, dtype: str) -> Path:
    """Write the shards that are missing, and return their folder."""
    from nla.models.loaded import load_model
    from nla.organisms.known_states import extract_known_states
    from nla.training.config import read_config
    from nla.training.data.extract import extract

    pair = read_config(config)
    model = load_model(pair.model, device=device, dtype=dtype)
    console = Console(stderr=True)
    out = _work_folder(config, work) / "data"
    data = pair.data.model_copy(update={"teacher": teacher}) if teacher else pair.data
    report = partial(_report_shard, console)
    added = extract(model, data, out, corpora, report)
    if data.known_states:
        added += extract_known_states(model, data, out, corpora, report)
    console.print(plain(f"{added} vectors added to {out}"))
    return out


def _report_shard(console: Console, what: str, done: int, n: int) -> None:
    console.print(plain(f"{done}/{n} {what}", "dim"))


@app.command("train")
def train(
    stage: Annotated[TrainStage, typer.Argument(help="av, samples, ar, rl, or all (with data).")],
    config: ConfigPath,
    corpora: CorporaBase = None,
    work: WorkFolder = None,
    start: Annotated[str | None, typer.Option(help="A pair of adapters, which are trained further.")] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Time for the training stages; each gets a share, and its schedule ends with it.", min=0.01)
    ] = None,
    log_with: Annotated[str | None, typer.Option(help="Also send the metrics to tensorboard, wandb or trackio.")] = None,
    device: Device = "auto",
    dtype: DType = "auto",
) -> None:
    """Train a pair. Every stage writes checkpoints, and resumes from them when the same command is given again.

    Example: nla train all nla/pairs/smollm2.toml --corpora ../shared/data
    """
    from nla.training.config import read_config
    from nla.training.curves import write_curves
    from nla.training.pair import PairTraining

    if stage is TrainStage.ALL:
        _extract(config, corpora, work, None, device, dtype)  # training reads the explanations, and refuses dead lines
    settings = read_config(config)
    settings = settings.model_copy(update={"start": start}) if start else settings
    pair = PairTraining(settings, _work_folder(config, work), dtype=dtype, device=device)
    say = Console(stderr=True, highlight=False, soft_wrap=True).print
    ends = time.monotonic() + 60 * minutes if minutes else None
    if stage in (TrainStage.AV, TrainStage.ALL):
        pair.train_av(say, _limits(ends, _AV_SHARE if stage is TrainStage.ALL else 1.0, log_with))
    if stage in (TrainStage.SAMPLES, TrainStage.ALL):
        pair.sample(say)
    if stage in (TrainStage.AR, TrainStage.ALL):
        pair.train_ar(say, _limits(ends, _AR_SHARE if stage is TrainStage.ALL and settings.rl else 1.0, log_with))
    if stage in (TrainStage.RL, TrainStage.ALL):
        pair.train_rl(say, _limits(ends, 1.0, log_with))
    write_curves(pair.work, pair.work / "pair", say)


def _limits(ends: float | None, share: float, log_with: str | None) -> "Limits":
    """Return the limits of a stage that gets a share of the time that is left."""
    from nla.training.loop import Limits

    return Limits(None if ends is None else max(share * (ends - time.monotonic()), 0.1), log_with)


@app.command("score")
def score_command(
    pair: Annotated[str, typer.Argument(help="An alias (smollm2), a pair's folder with av/ and ar/, or an AV's hub id or folder.")],
    heldout: Annotated[Path, typer.Option(help="Documents the pair never saw: .parquet, .jsonl, .csv or .txt.")],
    ar: Annotated[str | None, typer.Option(help="The AR's folder or hub id, if it is not beside the AV.")] = None,
    limit: Annotated[int, typer.Option(help="Vectors to score.", min=2)] = 400,
    only: Annotated[str | None, typer.Option(help="COLUMN=VALUE: take only these rows, e.g. source=crawl_descriptions.")] = None,
    unseen: Annotated[bool, typer.Option(help="Take only documents that `nla data` keeps out of training.")] = False,
    best_of: Annotated[int, typer.Option(help="Explanations drawn per vector; the AR keeps the best.", min=1, max=1000)] = 1,
    temperature: Annotated[float | None, typer.Option(help="Sampling temperature; default: the pair's.", min=0, max=100)] = None,
    warm_start: Annotated[
        str | None, typer.Option(help="The AV from which training by reward started; adds the KL divergence from it.")
    ] = None,
    known_prompts: Annotated[int, typer.Option(help="Prompts per organism of the known-groups test; 0 leaves it out.", min=0)] = 20,
    json_out: JsonOut = None,
    device: Device = "auto",
    dtype: DType = "auto",
) -> None:
    """Score a pair on held-out documents.

    Measures reconstruction, retrieval, text quality and instrument controls, with intervals over documents, and, where the base model has
    organisms, whether the explanations tell their known state.

    Example: nla score smollm2 --heldout docs.parquet --limit 400 --json s.json
    """
    from nla.api import load_pair
    from nla.scoring import Scoring, score_pair
    from nla.support.json_output import write_json
    from nla.support.locks import output_lock
    from nla.verbalizers.av import load_verbalizer

    console = Console(stderr=True)
    with output_lock(json_out, "nla score"):
        loaded = load_pair(pair, ar=ar, device=device, dtype=dtype).with_options(best_of=best_of, temperature=temperature)
        warm = load_verbalizer(warm_start, device=device, dtype=dtype)[0] if warm_start else None
        scoring = Scoring(heldout=heldout, limit=limit, only=only, unseen=unseen, known_prompts=known_prompts)
        result = score_pair(loaded, scoring, lambda step: console.print(plain(step, "dim")), warm)
        _print_score(f"{pair} on {heldout.name}", result)
        if json_out is not None:
            write_json(json_out, result)


def _print_score(title: str, result: "Score") -> None:
    table = Table("measure", "estimate", "95 % interval", "note", title=plain(title))
    for measure in result.measures:
        table.add_row(plain(measure.name), f"{measure.estimate:.3f}", measure.interval, plain(measure.note))
    Console().print(table)
    Console().print(plain(f"{result.n} vectors of {result.n_documents} documents, {result.n_failed} failed; {result.settings}", "dim"))


@app.command("card")
def renew_card(
    pair: Annotated[Path, typer.Argument(help="A pair's folder with av/, ar/, README.md and card.toml.")],
    corpora: CorporaBase = None,
    text: Annotated[list[Path] | None, typer.Option("--text", help="Another text that quotes the figures, such as README.md.")] = None,
    device: Device = "auto",
) -> None:
    """Score a pair on the documents that its card.toml names, and write the figures into its card.

    Scores that the folder already has for these adapters are kept, so an interrupted run resumes.

    Example: nla card nla/pairs/smollm2-135m-L20 --corpora ../shared/data --text README.md
    """
    from nla.card import renew

    console = Console(stderr=True)
    for path in renew(pair, corpora, text or [], device, lambda step: console.print(plain(step, "dim"))):
        Console().print(plain(path), soft_wrap=True)


@app.command("explain")
def explain_text(
    pair: Annotated[str, typer.Argument(help="An alias, a pair's folder, or an AV's hub id or folder.")],
    text: Annotated[str, typer.Option(help="The text to read.")],
    token: Annotated[list[int] | None, typer.Option(help="Positions to explain (0-based, negative from the end); default: all.")] = None,
    ar: Annotated[str | None, typer.Option(help="The AR's folder or hub id, if it is not beside the AV.")] = None,
    device: Device = "auto",
    dtype: DType = "auto",
) -> None:
    """Explain the tokens of a text.

    Beside each explanation is the cosine between the vector and its reconstruction from the explanation.

    Example: nla explain smollm2 --text "The capital of France is" --token -1
    """
    from nla.api import load_pair
    from nla.support.errors import ConfigError

    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ConfigError("The text holds bytes that are not UTF-8; give it in UTF-8 (--text).")
    table = Table("position", "token", "explanation", "cosine", show_lines=True)
    for row in load_pair(pair, ar=ar, device=device, dtype=dtype).explain(text, token or None):
        cosine = "" if row.cosine is None else f"{row.cosine:.2f}"
        table.add_row(str(row.position), plain(repr(row.token)), plain(row.failure or row.explanation, lines=True), cosine)
    Console().print(table)


@app.command("export")
def export(
    pair: Annotated[str, typer.Argument(help="An alias, or a folder with the adapters av/ and ar/.")],
    out: Annotated[Path, typer.Argument(help="A new folder for the full checkpoints.")],
    dtype: DType = "auto",
) -> None:
    """Write a pair as full checkpoints.

    They have the layout of the public reference.

    Example: nla export smollm2 exported/
    """
    from nla.pair.export import export_pair

    for folder in export_pair(pair, out, dtype=dtype):
        Console().print(plain(folder), soft_wrap=True)


@app.command("average")
def average(
    first: Annotated[str, typer.Argument(help="An alias, or a folder with the adapters av/ and ar/.")],
    second: Annotated[str, typer.Argument(help="A pair that was trained from the first one, or the first one from it.")],
    out: Annotated[Path, typer.Argument(help="A new folder for the pair between them.")],
    share: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of the second pair.")] = 0.5,
) -> None:
    """Write the pair between two pairs, weight by weight.

    Training that goes too far in one respect, such as claiming less, is taken back in part.

    Example: nla average before/ after/ between/ --share 0.33
    """
    from nla.pair.average import average_pairs

    for folder in average_pairs(first, second, share, out):
        Console().print(plain(folder), soft_wrap=True)


def _work_folder(config: Path, work: Path | None) -> Path:
    from nla.support.wheels import cache_dir

    return work or cache_dir() / "nla" / config.stem


def main() -> None:
    """Run the `nla` command; a user's mistake is one message on stderr and exit status 2, never a traceback."""
    run(app)


if __name__ == "__main__":
    main()
