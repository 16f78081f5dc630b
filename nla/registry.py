"""Inspect's entry point: registers the `local` model provider. Imports without torch, or Inspect could not name what is wrong."""

from inspect_ai.model import ModelAPI, modelapi

import nla.launch  # noqa: F401  (records where the command was started)


@modelapi(name="local")
def local() -> type[ModelAPI]:
    """`--model local/NAME`: an open-weights model in this process (see `nla.provider`)."""
    from nla.provider import LocalAPI

    return LocalAPI
