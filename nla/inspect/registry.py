"""Inspect's entry point: registers the `local` model provider. It imports no torch, so that `inspect` starts fast without it."""

import sys
from types import TracebackType

from inspect_ai.model import ModelAPI, modelapi
from rich.console import Console

import nla.support.paths  # noqa: F401  (records where the command was started)
from nla.support.errors import HarnessError
from nla.support.shadowing import hiding, tell_of_hidden_packages


@modelapi(name="local")
def local() -> type[ModelAPI]:
    """`--model local/NAME`: an open-weights model in this process (see `nla.inspect.provider`)."""
    from nla.inspect.provider import LocalAPI

    return LocalAPI


def show_user_errors_as_messages() -> None:
    """Make an uncaught `HarnessError` end the process with its message alone, as Inspect does for its own `PrerequisiteError`."""
    earlier_hook = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        said = str(error) if isinstance(error, HarnessError) else hiding(error.name) if isinstance(error, ModuleNotFoundError) else None
        if said is not None:
            Console(stderr=True).print(f"error: {said}", markup=False, highlight=False, soft_wrap=True)
        else:
            earlier_hook(kind, error, traceback)

    sys.excepthook = hook


show_user_errors_as_messages()
tell_of_hidden_packages()
