"""The `nla` command: models on this machine, and the autoencoder's data, training, scoring and export."""

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from nla.support.command import run

if TYPE_CHECKING:
    from nla.models.loaded import LoadedModel
    from nla.pair.reconstructor import Reconstructor

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Natural language autoencoders and the models they read.",
)
models_app = typer.Typer(
    invoke_without_command=True, help="List the model aliases and whether their files are here; `models fetch NAME` gets them."
)
app.add_typer(models_app, name="models")


@models_app.callback()
def list_models(context: typer.Context) -> None:
    """List the model aliases and whether their files are here."""
    if context.invoked_subcommand is not None:
        return
    from nla.models.sources import ALIASES, alias_state

    table = Table("alias", "hub id", "state")
    for name, alias in ALIASES.items():
        table.add_row(name, alias.hub_id, alias_state(alias))
    Console().print(table)
    Console().print("Use one as --model local/ALIAS; any hub id, folder or .gguf file works too.", style="dim")


@models_app.command("fetch")
def fetch_model(name: Annotated[str, typer.Argument(help="An alias of `nla models`, or a hub id.")]) -> None:
    """Fetch a model's files now, so that later runs need no network."""
    from nla.models.sources import fetch_with_progress

    Console().print(f"{name}: {fetch_with_progress(name)}", soft_wrap=True)


class TrainStage(StrEnum):
    """What `nla train` can be asked for; `all` is every stage in order."""

    AV = "av"
    SAMPLES = "samples"
    AR = "ar"
    RL = "rl"
    ALL = "all"


ConfigPath = Annotated[Path, typer.Argument(help="The pair's config, a TOML file such as nla/pairs/smollm2.toml.")]
CorporaBase = Annotated[Path | None, typer.Option("--corpora", help="Folder that the config's relative corpus paths start from.")]
WorkFolder = Annotated[Path | None, typer.Option("--work", help="Working folder; default: the user's cache, by the config's name.")]
Device = Annotated[str, typer.Option(help="auto or a torch device name.")]
DType = Annotated[str, typer.Option(help="auto, bfloat16, float16 or float32.")]


@app.command("data")
def make_data(
    config: ConfigPath,
    corpora: CorporaBase = None,
    work: WorkFolder = None,
    teacher: Annotated[str | None, typer.Option(help="features (no LLM), or an Inspect model such as anthropic/MODEL.")] = None,
    device: Device = "auto",
    dtype: DType = "auto",
) -> None:
    """Read activations and write training data; an interrupted run goes on where it was."""
    from nla.models.loaded import load_model
    from nla.training.config import read_config
    from nla.training.data.extract import extract

    pair = read_config(config)
    model = load_model(pair.model, device=device, dtype=dtype)
    console = Console(stderr=True)
    out = _work_folder(config, work) / "data"
    data = pair.data.model_copy(update={"teacher": teacher}) if teacher else pair.data
    added = extract(model, data, out, corpora, lambda what, done, n: console.print(f"{done}/{n} {what}", style="dim"))
    console.print(f"{added} vectors added to {out}")


@app.command("train")
def train(
    stage: Annotated[TrainStage, typer.Argument(help="av, samples, ar, rl, or all (with data).")],
    config: ConfigPath,
    corpora: CorporaBase = None,
    work: WorkFolder = None,
    start: Annotated[str | None, typer.Option(help="A pair of adapters whose AV the warm start continues.")] = None,
    device: Device = "auto",
    dtype: DType = "auto",
) -> None:
    """Train a pair. Every stage writes checkpoints, survives a kill, and goes on when the same command is given again."""
    from nla.training.config import read_config
    from nla.training.curves import write_curves
    from nla.training.pair import PairTraining

    if stage is TrainStage.ALL:
        make_data(config, corpora, work, None, device, dtype)
    given = read_config(config)
    given = given.model_copy(update={"start": start}) if start else given
    pair = PairTraining(given, _work_folder(config, work), dtype=dtype, device=device)
    say = Console(stderr=True, highlight=False, soft_wrap=True).print
    steps = {TrainStage.AV: pair.train_av, TrainStage.SAMPLES: pair.sample, TrainStage.AR: pair.train_ar, TrainStage.RL: pair.train_rl}
    for name, run_stage in steps.items():
        if stage in (name, TrainStage.ALL):
            run_stage(say)
    write_curves(pair.work, pair.work / "pair")


@app.command("score")
def score_pair(
    pair: Annotated[str, typer.Argument(help="An alias (smollm2), a pair's folder with av/ and ar/, or an AV's hub id or folder.")],
    heldout: Annotated[Path, typer.Option(help="Documents the pair never saw: .parquet, .jsonl, .csv or .txt.")],
    ar: Annotated[str | None, typer.Option(help="The AR's folder or hub id, where it is not beside the AV.")] = None,
    limit: Annotated[int, typer.Option(help="Vectors to score.", min=2)] = 400,
    only: Annotated[str | None, typer.Option(help="COLUMN=VALUE: take only these rows, e.g. source=crawl_descriptions.")] = None,
    unseen: Annotated[bool, typer.Option(help="Take only documents that `nla data` keeps out of training.")] = False,
    best_of: Annotated[int, typer.Option(help="Draw this many explanations a vector, and let the AR choose.", min=1)] = 1,
    temperature: Annotated[float | None, typer.Option(help="Instead of the one the pair is shipped with.", min=0)] = None,
    warm_start: Annotated[str | None, typer.Option(help="The AV that training by reward started from: adds the KL to it.")] = None,
    json_out: Annotated[Path | None, typer.Option("--json", help="Also write everything to this file.")] = None,
    device: Device = "auto",
    dtype: DType = "auto",
) -> None:
    """Score a pair on held-out documents: reconstruction, retrieval, text quality, controls; with intervals over documents."""
    from nla.training.evaluation import corpus_of, read_moments, score, write_json
    from nla.verbalizers.av import load_verbalizer

    console = Console(stderr=True)
    av, base = load_verbalizer(pair, device=device, dtype=dtype)
    reconstructor = _reconstructor(ar or pair, base)
    heat = av.temperature if temperature is None else temperature
    av = replace(av, temperature=heat, best_of=best_of, reconstructor=reconstructor if best_of > 1 else None)
    warm = load_verbalizer(warm_start, device=device, dtype=dtype)[0] if warm_start else None
    moments = read_moments(base, av.layer, corpus_of(heldout, only), limit, unseen=unseen)
    found = score(av, reconstructor, moments, lambda what: console.print(what, style="dim"), warm)
    table = Table("measure", "estimate", "95 % interval", "note", title=f"{pair} on {heldout.name}")
    for measure in found.measures:
        interval = f"{measure.low:.3f} to {measure.high:.3f}" if measure.low is not None else ""
        table.add_row(measure.name, f"{measure.estimate:.3f}", interval, measure.note)
    Console().print(table)
    Console().print(f"{found.n} vectors of {found.n_documents} documents, {found.n_failed} failed; {found.settings}", style="dim")
    if json_out is not None:
        write_json(json_out, found)


@app.command("explain")
def explain_text(
    pair: Annotated[str, typer.Argument(help="An alias, a pair's folder, or an AV's hub id or folder.")],
    text: Annotated[str, typer.Option(help="The text to read.")],
    token: Annotated[list[int] | None, typer.Option(help="Positions to explain (0-based, negative from the end); default: all.")] = None,
    ar: Annotated[str | None, typer.Option(help="The AR's folder or hub id, where it is not beside the AV.")] = None,
    device: Device = "auto",
    dtype: DType = "auto",
) -> None:
    """Explain the tokens of a text, with how well each explanation reconstructs its vector."""
    from nla.activations.capture import residual_stream
    from nla.models.chat_template import encode_content
    from nla.support.errors import ConfigError
    from nla.verbalizers.av import load_verbalizer

    av, base = load_verbalizer(pair, device=device, dtype=dtype)
    ids = encode_content(base.tokenizer, text)
    if not ids:
        raise ConfigError("the text is empty; give one with at least one token (--text).")
    chosen = range(len(ids)) if not token else [position % len(ids) for position in token]
    if any(not -len(ids) <= position < len(ids) for position in token or []):
        raise ConfigError(f"the text has {len(ids)} tokens; give positions from {-len(ids)} to {len(ids) - 1}.")
    vectors = residual_stream(base, ids, av.layer)[list(chosen)].cpu()
    told = av.verbalize(vectors, [("explain", position) for position in chosen])
    errors = _reconstructor(ar or pair, base).score(vectors, [one.text or "-" for one in told])
    table = Table("position", "token", "explanation", "cosine", show_lines=True)
    for position, one, error in zip(chosen, told, errors.tolist(), strict=True):
        table.add_row(str(position), repr(base.tokenizer.decode(ids[position])), one.failure or one.text, f"{1 - error / 2:.2f}")
    Console().print(table)


@app.command("export")
def export(
    pair: Annotated[str, typer.Argument(help="An alias, or a folder with the adapters av/ and ar/.")],
    out: Annotated[Path, typer.Argument(help="A new folder for the full checkpoints.")],
    dtype: DType = "auto",
) -> None:
    """Write a pair as full checkpoints in the public reference's layout."""
    from nla.pair.export import export_pair

    for folder in export_pair(pair, out, dtype=dtype):
        Console().print(str(folder), markup=False, soft_wrap=True)


def _reconstructor(where: str, base: "LoadedModel") -> "Reconstructor":
    from nla.pair.reconstructor import load_reconstructor

    return load_reconstructor(where, base, dtype=base.precision.name, device=str(base.device))


def _work_folder(config: Path, work: Path | None) -> Path:
    from nla.support.wheels import cache_dir

    return work or cache_dir() / "nla" / config.stem


def main() -> None:
    """Entry point: a user's mistake is one message on stderr and exit status 2, never a traceback."""
    run(app)


if __name__ == "__main__":
    main()
