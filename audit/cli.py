"""The `audit` command."""

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from nla.cli import fetch_with_progress, run

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Does an open model know, inside, that it is being tested?",
)


@app.callback()
def _audit() -> None:
    """Keep `audit demo` a subcommand while it is the only one."""


@app.command()
def demo(
    limit: Annotated[int, typer.Option(help="Items a condition (at most 40).")] = 40,
    tokens: Annotated[int, typer.Option(help="Response tokens read a transcript.")] = 50,
    out: Annotated[Path, typer.Option(help="Folder for the logs.")] = Path("demo"),
    verbalizer: Annotated[str, typer.Option(help="What turns vectors into text: logit_lens or selfie.")] = "logit_lens",
    grader: Annotated[str, typer.Option(help="What labels the explanations.")] = "rules",
    threads: Annotated[int | None, typer.Option(help="Torch threads; default: torch's choice.")] = None,
) -> None:
    """Measure evaluation awareness of the embedded model on bundled data: a benchmark, a deployment control, a positive control."""
    fetch_with_progress("smollm2")
    from audit.demo import DemoConfig, demo_table, run_demo

    config = DemoConfig(out, limit, tokens, verbalizer, grader, threads)
    rows = run_demo(config)
    console = Console()
    console.print(demo_table(rows, config))
    console.print(
        f"Logs: {out / 'logs'}. Open them with: inspect view --log-dir {shlex.quote(str(out / 'logs'))}", soft_wrap=True, markup=False
    )


def main() -> None:
    """Entry point: a user's mistake is one message on stderr and exit status 2, never a traceback."""
    run(app)


if __name__ == "__main__":
    main()
