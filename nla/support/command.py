"""What every command line of the project shares: how help looks, and how a command ends.

A user's mistake is one message and exit status 2, never a traceback; so are a full or read-only disk and too little memory. Output that
the terminal's encoding cannot show (ASCII, Latin-1) is written as escapes instead of failing after the work is done.
"""

import io
import os
import sys
from typing import NoReturn

import typer
from rich.console import Console

from nla.support.display import plain
from nla.support.errors import HarnessError, StoppedError, first_line, lacks_memory
from nla.support.files import disk_errno
from nla.support.shadowing import hiding, tell_of_hidden_packages


def application(text: str) -> typer.Typer:
    """Return an empty command line with a help text. Its help is plain text of at most 100 columns, in which nothing is markup."""
    return typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"max_content_width": 100},
        help=text,
    )


def run(command: typer.Typer) -> None:
    """Run a command line, and end the process with 2 after a `HarnessError`, 130 after a `StoppedError` (message on stderr)."""
    _escape_what_cannot_be_shown()
    tell_of_hidden_packages()
    try:
        command()
    except HarnessError as ex:
        _fail(f"error: {ex}", 2)
    except StoppedError as ex:
        _fail(str(ex), 130)
    except Exception as ex:
        message = hiding(ex.name) if isinstance(ex, ModuleNotFoundError) else resource_error(ex)
        if message is None:
            raise
        _fail(f"error: {message}", 2)


def resource_error(ex: BaseException) -> str | None:
    """Return the message for an exception that means a full or read-only disk or too little memory; None for any other exception."""
    number = disk_errno(ex)
    if number is not None:
        path = getattr(ex, "filename", None) or "a file"
        return f"{path} cannot be written: {os.strerror(number)}. Free space, or give another place."
    if lacks_memory(ex):
        return f"not enough memory ({first_line(ex)}). Raise the limit, close other programs, or use a smaller model or --dtype bfloat16."
    return None


def _fail(message: str, status: int) -> NoReturn:
    Console(stderr=True).print(plain(message, lines=True), highlight=False, soft_wrap=True)
    sys.exit(status)


def _escape_what_cannot_be_shown() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
