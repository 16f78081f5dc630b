"""Views of a loaded model for the `local/` provider: the same weights under steering, with another chat template, and the like.

Providers that ask for the same view get the same object, so that they share a batch.
"""

import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from nla.activations.steering import steered
from nla.instrument import MEAN_NORM
from nla.models.chat_template import template_source, with_template
from nla.models.loaded import LoadedModel
from nla.support.display import visible
from nla.support.errors import ConfigError, first_line
from nla.support.paths import user_path

_LONGEST_TEMPLATE = 1_000_000
"""Bytes of a chat template file."""
_views: dict[tuple[int, str], LoadedModel] = {}
_making = threading.Lock()


def steered_view(model: LoadedModel, spec: str, unit: str = MEAN_NORM) -> LoadedModel:
    """Return the steered view of a loaded model.

    Args:
        model: the model.
        spec: `NAME:STRENGTH`, see `nla.activations.steering.steered`.
        unit: unit of the strength, one of `nla.instrument.STEER_UNITS`.

    Raises:
        ConfigError: unknown name, unreadable file, or directions of another model's width or depth.
    """
    return view_of(model, f"{unit}:{spec}", lambda: steered(model, spec, unit))


def templated_view(model: LoadedModel, template_file: str | None, arguments: Mapping[str, Any]) -> LoadedModel:
    """Return a view of a model with another chat template, or with further arguments for it; the model itself where there are neither.

    Args:
        model: the model.
        template_file: path of a Jinja file; None keeps the model's own template.
        arguments: arguments for the template, of JSON types.

    Raises:
        ConfigError: the file cannot be read, or the template does not use an argument.
    """
    if template_file is None and not arguments:
        return model
    template = None if template_file is None else read_template(template_file)
    tokenizer = with_template(model.tokenizer, template, arguments)
    source = template_source(tokenizer) if tokenizer.chat_template else ""
    for name in arguments:
        if not re.search(rf"\b{re.escape(name)}\b", source):
            raise ConfigError(
                f"The chat template of {model.source.name} does not use the argument {visible(name, limit=60)}, so it would "
                "change nothing; leave it out."
            )
    key = json.dumps([template, dict(arguments)], sort_keys=True)
    return view_of(model, key, lambda: replace(model, tokenizer=tokenizer))


def view_of(model: LoadedModel, key: str, make: Callable[[], LoadedModel]) -> LoadedModel:
    """Return the view of a model under a key; `make` makes it once."""
    with _making:
        if (id(model), key) not in _views:
            _views[id(model), key] = make()
        return _views[id(model), key]


def read_template(name: str) -> str:
    """Read a chat template from a file.

    Raises:
        ConfigError: there is no such file, or it is no text of a chat template's size.
    """
    path = user_path(str(name))
    try:
        if path.stat().st_size > _LONGEST_TEMPLATE:
            raise ConfigError(f"{visible(path)} is larger than a chat template ({_LONGEST_TEMPLATE} bytes); give a Jinja file.")
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as ex:
        raise ConfigError(
            f"Cannot read the chat template {visible(path)}: {first_line(ex)}. Expected a Jinja file in UTF-8 (-M chat_template=FILE)."
        ) from ex
    if not text.strip():
        raise ConfigError(f"The chat template {visible(path)} is empty; expected a Jinja file.")
    return text


def parse_template_args(given: object) -> dict[str, Any]:
    """Read `-M template_args=...`: a JSON object, as text or already parsed.

    Raises:
        ConfigError: it is something else.
    """
    if given is None:
        return {}
    try:
        value = json.loads(given) if isinstance(given, str) else given
        if isinstance(value, dict) and all(isinstance(name, str) and name.isidentifier() for name in value):
            json.dumps(value)
            return value
    except (ValueError, TypeError, RecursionError):
        pass
    raise ConfigError(
        f"Invalid -M template_args={visible(given, limit=80)}: expected a JSON object of names and values, "
        'such as -M \'template_args={"date_string": "26 Jul 2024"}\'.'
    )
