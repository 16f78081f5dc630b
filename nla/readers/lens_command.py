"""`nla lens fit`: fit the Jacobian lens of a model."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from nla.support.display import plain, visible
from nla.support.errors import DataError
from nla.support.options import Device, DType

app = typer.Typer(help="The Jacobian lens: what a vector disposes the model to say, without any label.")


@app.callback()
def lens() -> None:
    """Fit the lens that `-T verbalizer=jacobian_lens` reads with."""


@app.command("fit")
def fit(
    model: Annotated[str, typer.Argument(help="An alias, an organism, a hub id or a folder.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file of the lens (.safetensors).")],
    prompts: Annotated[Path | None, typer.Option(help="Texts: rows with text; default: the project's neutral passages.")] = None,
    n: Annotated[int, typer.Option(help="Texts that are used.", min=2)] = 64,
    tokens: Annotated[int, typer.Option(help="Tokens of each text; shorter texts are left out.", min=2)] = 24,
    layer: Annotated[int | None, typer.Option(help="Block whose output is read; default: two thirds of the depth.", min=0)] = None,
    device: Device = "auto",
    dtype: DType = "float32",
) -> None:
    """Fit the mean Jacobian from a block to the last one. Prints how alike the means of two halves of the texts are (1: converged).

    Example: nla lens fit smollm2 -o lens.safetensors
    """
    from nla.activations.jacobian import mean_jacobian
    from nla.models.chat_template import encode
    from nla.models.loaded import load_model
    from nla.probes.concept_sets import read_neutral
    from nla.support.locks import exclusive_lock
    from nla.support.pace import Pace
    from nla.verbalizers.jacobian_lens import save_lens

    texts = read_neutral(prompts)
    # Taken before the work is done, so that an output that cannot be written is known at once.
    with exclusive_lock(out, "nla lens fit"):
        loaded = load_model(model, dtype=dtype, device=device)
        layer = loaded.check_layer(layer)
        long_enough = [ids[:tokens] for text in texts if len(ids := encode(loaded.tokenizer, text)) >= tokens]
        if len(long_enough) < n:
            where = "The project's neutral passages" if prompts is None else visible(prompts)
            raise DataError(f"{where}: {len(long_enough)} texts have {tokens} tokens, expected {n}; give smaller --n or --tokens.")
        say, pace = Console(stderr=True).print, Pace(n)

        def report(done: int, _n: int, cosine: float) -> None:
            say(plain(f"{pace.line(done)}; cosine of the halves {cosine:.4f}", "dim"))

        fitted = mean_jacobian(loaded, layer, long_enough[:n], report)
        save_lens(out, loaded, layer, fitted)
    Console().print(
        plain(
            f"{out}: block {layer}, {fitted.n_prompts} texts, {fitted.n_positions} positions; cosine between the two halves' means "
            f"{fitted.halves_cosine:.4f}"
        ),
        soft_wrap=True,
    )
