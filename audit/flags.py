"""Command-line flags made from a pydantic model, so that a field is described once: its name, type, default and help are the model's.

A field `max_tokens: int` becomes `--max-tokens INTEGER`, a boolean becomes `--name/--no-name`, a tuple takes values separated by commas,
and a dictionary takes NAME=VALUE pairs separated by commas. The help is the docstring below the field.
"""

import inspect
import types
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from nla.support.errors import ConfigError

_PLAIN = {int: int, float: float, str: str, bool: bool, datetime: str}
FLAG_NAMES = {"pair": "nla"}
"""Flags whose names differ from their fields'."""


def with_flags(config: type[BaseModel], *, leave_out: frozenset[str] = frozenset()) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command one flag for each field of a model. The command's parameter `given` receives the fields the user set, unchecked.

    Args:
        config: the model.
        leave_out: fields without a flag.
    """
    flagged = {name: field for name, field in config.model_fields.items() if name not in leave_out}

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(command)

        def with_given(**arguments: Any) -> Any:
            typed = {name: arguments.pop(name) for name in flagged}
            given = {name: _parsed(name, flagged[name], text) for name, text in typed.items() if text is not None}
            return command(**arguments, given=given)

        parameters = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for name, parameter in signature.parameters.items() if name != "given"
        ]
        parameters += [_flag(name, field) for name, field in flagged.items()]
        with_given.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        with_given.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        with_given.__doc__, with_given.__name__ = command.__doc__, command.__name__
        return with_given

    return decorate


def _flag(name: str, field: FieldInfo) -> inspect.Parameter:
    kind = _element(field.annotation)
    flag = f"--{FLAG_NAMES.get(name, name).replace('_', '-')}"
    flags = [f"{flag}/--no-{flag.removeprefix('--')}"] if kind is bool else [flag]
    help_text = " ".join((field.description or "").split())
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    if default not in (None, (), {}, ""):
        help_text += f" [default: {','.join(default) if isinstance(default, tuple) else default}]"
    option = Annotated[_PLAIN.get(kind, str) | None, typer.Option(*flags, help=help_text, show_default=False)]  # type: ignore[valid-type]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option)


def _element(annotation: Any) -> Any:
    """The type of a field without `| None`; tuples and dictionaries count as text."""
    if get_origin(annotation) in (Union, types.UnionType):
        [annotation] = [part for part in get_args(annotation) if part is not type(None)]
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return str if get_origin(annotation) in (tuple, dict, Literal) else annotation


def _parsed(name: str, field: FieldInfo, text: Any) -> Any:
    annotation = field.annotation
    if get_origin(annotation) is tuple:
        return [part.strip() for part in str(text).split(",") if part.strip()]
    if get_origin(annotation) is dict:
        return _pairs(name, str(text))
    return text


def _pairs(name: str, text: str) -> dict[str, Any]:
    pairs: dict[str, Any] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"Invalid --{name.replace('_', '-')} {text!r}: expected NAME=VALUE, with commas between several.")
        pairs[key.strip()] = _typed(value.strip())
    return pairs


def _typed(text: str) -> Any:
    """A value as Inspect's `-M` reads it: numbers and booleans are typed, everything else is text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text
