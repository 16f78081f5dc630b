"""How every command line of the project ends: a user's mistake is one message and exit status 2, never a traceback."""

import sys

import typer
from rich.console import Console

from nla.support.errors import HarnessError, StoppedError


def run(command: typer.Typer) -> None:
    """Run a command line. A `HarnessError` is printed on stderr (exit status 2), and so is a `StoppedError` (exit status 130)."""
    try:
        command()
    except HarnessError as ex:
        Console(stderr=True).print(f"error: {ex}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except StoppedError as ex:
        Console(stderr=True).print(str(ex), markup=False, highlight=False, soft_wrap=True)
        sys.exit(130)
