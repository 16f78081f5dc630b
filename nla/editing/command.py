"""`nla edit`: edit an explanation, and see what the model says then."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from nla.support.display import plain
from nla.support.options import Device, DType, JsonOut

if TYPE_CHECKING:
    from nla.editing.edit import EditResult, Outcome


def edit_command(
    pair: Annotated[str, typer.Argument(help="An alias, a pair's folder, or an AV's hub id or folder.")],
    text: Annotated[str, typer.Option(help="The text that the model reads.")],
    replace: Annotated[str, typer.Option(help="OLD=NEW: a piece of the token's explanation, and what replaces it.")],
    token: Annotated[int, typer.Option(help="Position of the edited token (0-based, negative from the end).")] = -1,
    continuation: Annotated[list[str] | None, typer.Option(help="A text whose log-probability is measured; may be repeated.")] = None,
    alpha: Annotated[str, typer.Option(help="Strengths, as shares of the residual stream's norm.")] = "0.25,0.5,1",
    samples: Annotated[int, typer.Option(help="Sampled continuations per strength.", min=0, max=100)] = 1,
    ar: Annotated[str | None, typer.Option(help="The AR's folder or hub id, if it is not beside the AV.")] = None,
    json_out: JsonOut = None,
    device: Device = "auto",
    dtype: DType = "auto",
) -> None:
    """Edit what an explanation says of a token, and see what the model says then.

    Adds alpha |h| D/|D| at the token and the pair's block, where D is the AR's reading of the edited explanation minus that of the
    original. Beside it stand the same strength of an edit without meaning, an unrelated one, and 20 random directions.

    Example: nla edit smollm2 --text "The capital of France is" --replace city=ocean --continuation " Paris"
    """
    from nla.api import load_pair
    from nla.editing.edit import edit
    from nla.support.json_output import write_json
    from nla.support.locks import output_lock

    old, new = _replacement(replace)
    alphas = strengths(alpha)
    with output_lock(json_out, "nla edit"):
        loaded = load_pair(pair, ar=ar, device=device, dtype=dtype)
        result = edit(loaded, text, token, old, new, alphas, continuation or [], samples)
        _print(result, Console())
        if json_out is not None:
            write_json(json_out, result)


def _replacement(spec: str) -> tuple[str, str]:
    from nla.support.errors import ConfigError

    old, equals, new = spec.partition("=")
    if not equals or not old:
        raise ConfigError(f"--replace is {spec!r}; expected OLD=NEW, such as city=ocean.")
    return old, new


def strengths(typed: str) -> list[float]:
    """Return the strengths of `0.25,0.5,1`.

    Raises:
        ConfigError: one is not a number from -10 to 10, or is 0.
    """
    from nla.support.errors import ConfigError

    try:
        values = [float(part) for part in typed.split(",")]
    except ValueError:
        values = []
    if not values or not all(0 < abs(value) <= 10 for value in values):
        raise ConfigError(f"--alpha is {typed!r}; expected strengths between -10 and 10 other than 0, such as 0.25,0.5,1.")
    return values


def _print(result: "EditResult", console: Console) -> None:
    table = Table("explanation", "edited", title=plain(f"token {result.position} {result.token!r}, block {result.layer}"))
    table.add_row(plain(result.explanation, lines=True), plain(result.edited, lines=True))
    console.print(table)
    columns = [Column(plain(f"log p of {text!r}")) for text in result.continuations]
    changes = Table("direction", "|D|", "alpha", *columns, "perplexity")
    changes.add_row("none", "", "0", *(f"{value:.2f}" for value in result.unedited), f"{result.unedited_perplexity:.2f}")
    for alpha in dict.fromkeys(outcome.alpha for outcome in result.outcomes):
        of_alpha = [outcome for outcome in result.outcomes if outcome.alpha == alpha]
        for outcome in of_alpha:
            if not outcome.arm.startswith("random"):
                length = f"{result.lengths[outcome.arm]:.2f}"
                changed = (f"{value:+.2f}" for value in outcome.change)
                changes.add_row(outcome.arm, length, f"{alpha:g}", *changed, f"{outcome.perplexity:.2f}")
        changes.add_row(*_random_row([outcome for outcome in of_alpha if outcome.arm.startswith("random")], alpha))
    console.print(changes)
    for strength, texts in result.samples.items():
        for text in texts:
            console.print(plain(f"alpha {strength}: {text}"), soft_wrap=True)


def _random_row(outcomes: "Sequence[Outcome]", alpha: float) -> list[str]:
    """Return the mean change under random directions, with the smallest and the largest."""
    columns = list(zip(*(outcome.change for outcome in outcomes), strict=True))
    cells = [f"{sum(column) / len(column):+.2f} ({min(column):+.2f} to {max(column):+.2f})" for column in columns]
    perplexity = sum(outcome.perplexity for outcome in outcomes) / len(outcomes)
    return [f"{len(outcomes)} random", "", f"{alpha:g}", *cells, f"{perplexity:.2f}"]
