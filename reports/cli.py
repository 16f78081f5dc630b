"""The `audit` command with what needs the layer of reports: everything of `audit.cli`, and `audit report`."""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from audit.cli import app
from nla.cli import run


@app.command("report")
def report(
    audit: Annotated[Path, typer.Argument(help="Folder of an audit (`audit run --out`).")] = Path("audit"),
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the report; an older report there is replaced as a whole.")] = Path(
        "report"
    ),
) -> None:
    """Write a self-contained page, Markdown, figures and tables of an audit."""
    from reports.build import build_report

    start = time.perf_counter()
    page = build_report(audit, out)
    Console().print(f"{page} ({page.stat().st_size / 1e6:.1f} MB, {time.perf_counter() - start:.1f} s)", markup=False, soft_wrap=True)


def main() -> None:
    """Entry point: a user's mistake is one message on stderr and exit status 2, never a traceback."""
    run(app)


if __name__ == "__main__":
    main()
