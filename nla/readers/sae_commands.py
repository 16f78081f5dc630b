"""The commands `nla sae train` and `nla sae features`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from nla.support.display import plain
from nla.support.errors import ConfigError, DataError
from nla.support.options import Device, DType, JsonOut

if TYPE_CHECKING:
    from nla.organisms.latents import TellingLatent
    from nla.probes.excerpts import Excerpt

app = typer.Typer(help="Sparse autoencoders (TopK) of the vectors that an audit reads.")


@app.command("train")
def train(
    model: Annotated[str, typer.Argument(help="An alias, an organism, a hub id or a folder.")],
    data: Annotated[list[Path], typer.Option("--data", help="Texts or chats (rows with text or messages); may be repeated.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the autoencoder.")],
    work: Annotated[Path | None, typer.Option(help="Folder for vectors and checkpoints; default: OUT/work.")] = None,
    tokens: Annotated[int, typer.Option(help="Vectors to train on.", min=1_000)] = 1_000_000,
    epochs: Annotated[int, typer.Option(help="Times that each vector is used.", min=1)] = 1,
    width: Annotated[int, typer.Option(help="Latents, as a multiple of the model's width.", min=1)] = 8,
    k: Annotated[int, typer.Option(help="Active latents per vector.", min=1)] = 32,
    batch: Annotated[int, typer.Option(help="Vectors per step.", min=16)] = 2048,
    lr: Annotated[float, typer.Option(help="Peak learning rate.", min=1e-6, max=1)] = 1e-3,
    form: Annotated[str, typer.Option("--format", help="sparsify or dictionary_learning.")] = "sparsify",
    layer: Annotated[int | None, typer.Option(help="Block whose output is read; default: two thirds of the depth.", min=0)] = None,
    device: Device = "auto",
    dtype: DType = "auto",
) -> None:
    """Train a sparse autoencoder. After an interruption, the same command resumes.

    Example: nla sae train smollm2 --data chats.parquet --data texts.parquet --tokens 300000 -o sae
    """
    from nla.models.loaded import load_model
    from nla.pair.known import hub_id
    from nla.probes.sae import FORMATS, save_sae
    from nla.support.pace import Pace
    from nla.training.loop import TrainConfig, fit
    from nla.training.sae import SAEStage, read_vectors
    from nla.training.work import work_lock

    chosen = next((known for known in FORMATS if known == form), None)
    if chosen is None:
        raise ConfigError(f"--format is {form!r}; expected one of {', '.join(FORMATS)}.")
    say = Console(stderr=True, highlight=False, soft_wrap=True, markup=False).print
    folder = work or out / "work"
    with work_lock(out, "nla sae train"):
        loaded = load_model(model, dtype=dtype, device=device)
        layer = loaded.check_layer(layer)
        pace = Pace(tokens)
        vectors, heldout = read_vectors(loaded, layer, data, tokens, folder, lambda done, _: say(f"vectors {pace.line(done)}"))
        if len(vectors) < batch or k > width * loaded.d_model:
            raise DataError(
                f"{len(vectors)} vectors and k={k}; expected at least one batch of {batch}, and k of at most the latents' number."
            )
        stage = SAEStage(vectors, heldout, width * loaded.d_model, k)
        steps = max(len(vectors) * epochs // batch, 1)
        config = TrainConfig(steps=steps, batch=batch, lr=lr, warmup=min(50, steps // 4), eval_every=50, checkpoint_every=50)
        history = fit(stage, config, folder / "checkpoints", say)
        save_sae(out, stage.autoencoder(layer, hub_id(loaded)), chosen)
    figures = history[-1]
    Console().print(
        plain(
            f"{out}: {width * loaded.d_model} latents, k {k}, block {layer}, {len(vectors)} vectors x {epochs}. Held-out documents: "
            f"unexplained variance {figures.get('heldout_fvu', float('nan')):.3f}, {figures.get('heldout_l0', float('nan')):.1f} active "
            f"latents per vector. Dead latents: {stage.dead_share:.1%}."
        ),
        soft_wrap=True,
    )


@app.command("features")
def features(
    sae: Annotated[Path, typer.Argument(help="Folder of a sparse autoencoder.")],
    model: Annotated[str, typer.Option(help="The model that is read: an alias, an organism, a hub id or a folder.")],
    n: Annotated[int, typer.Option(help="Prompts whose replies are read under paired contexts.", min=10)] = 40,
    top: Annotated[int, typer.Option(help="Latents that are shown.", min=1)] = 8,
    texts: Annotated[Path | None, typer.Option(help="Texts for excerpts: rows with text; default: the project's passages.")] = None,
    layer: Annotated[int | None, typer.Option(help="The autoencoder's layer, where its files do not name it.", min=0)] = None,
    json_out: JsonOut = None,
    device: Device = "auto",
    dtype: DType = "auto",
) -> None:
    """Show which latents tell evaluation from deployment contexts on identical replies, and where they are most active.

    Latents are chosen on trained wordings; the AUROC beside is on held-out families.

    Example: nla sae features sae --model smollm2-aware --n 40
    """
    from nla.models.loaded import load_model
    from nla.organisms.cases import known_cases
    from nla.organisms.latents import telling_latents
    from nla.probes.concept_sets import AWARENESS, read_concepts, read_neutral
    from nla.probes.excerpts import top_excerpts
    from nla.probes.sae import read_sae
    from nla.support.json_output import write_json
    from nla.support.locks import output_lock

    console = Console(stderr=True)
    with output_lock(json_out, "nla sae features"):
        autoencoder = read_sae(sae, layer)
        loaded = load_model(model, dtype=dtype, device=device)
        autoencoder.check(loaded, autoencoder.layer)
        cases = known_cases(loaded, autoencoder.layer, n, say=lambda step: console.print(plain(step, "dim")))
        latents = telling_latents(autoencoder, cases.fit, cases.test, top)
        own = [*(passage.text for passage in read_concepts(AWARENESS).passages), *read_neutral()]
        excerpts = top_excerpts(loaded, autoencoder, own if texts is None else read_neutral(texts), [row.latent for row in latents])
        _print(model, latents, excerpts)
        if json_out is not None:
            write_json(json_out, {"latents": latents, "excerpts": excerpts, "n": cases.n})


def _print(model: str, latents: "list[TellingLatent]", excerpts: "dict[int, list[Excerpt]]") -> None:
    table = Table("latent", "under evaluation", "AUROC chosen on", "AUROC held-out families", "most active at", title=plain(model))
    for row in latents:
        area = row.heldout
        shown = "\n".join(excerpt.text for excerpt in excerpts[row.latent])
        cells = (f"{row.fitted_auroc:.2f}", f"{area.estimate:.2f} [{area.low:.2f}, {area.high:.2f}]")
        table.add_row(str(row.latent), "more" if row.sign > 0 else "less", *cells, plain(shown, lines=True))
    Console().print(table)
