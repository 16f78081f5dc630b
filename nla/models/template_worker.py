"""The script that renders chat templates: a process with limited memory and CPU time.

A chat template is untrusted code in the Jinja language. `nla.models.template_sandbox` starts this file as a script and sends one JSON
request per line; each answer is one line of JSON. The script imports only the standard library and jinja2, so it starts fast.

Templates get the same environment as in `transformers`: Jinja's sandbox, which does not let them change their inputs, the filter `tojson`
without HTML escapes, `raise_exception`, `strftime_now`, loop controls and the `generation` tag. Two things differ, so that the output
depends on the request only: `strftime_now` reads the clock of the request, and every request starts with the same random seed.
"""

import contextlib
import json
import math
import random
import re
import resource
import sys
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

MEMORY_BYTES = 512 << 20
"""Limit on the address space of the process, in bytes."""
CPU_SECONDS = 1
"""Limit on the CPU time of a request, in seconds. The process counts whole seconds, so a request may get up to one more."""
SPARE_CHARACTERS = 1_000_000
"""Characters that a template may write beyond four times the length of the request."""

_ADDRESS = re.compile(r" at 0x[0-9a-f]+>")


class OutputLimitError(Exception):
    """A template wrote more text than any conversation needs."""


class _Generation(Extension):
    """The tag `{% generation %}...{% endgeneration %}`, which marks the assistant's words in some templates. It writes its content."""

    tags = {"generation"}  # noqa: RUF012  (jinja2 declares it as an instance variable)

    def parse(self, parser: Parser) -> nodes.Node:
        """Return the block's statements as a separate scope."""
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


class _PlainNamespace(Namespace):
    """The `namespace(...)` of templates, which refuses attributes with a leading underscore."""

    def __init__(*args: Any, **attributes: Any) -> None:
        self, *given = args
        names = dict(*given, **attributes)
        for name in names:
            _refuse_underscore(name)
        Namespace.__init__(self, names)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_underscore(name)
        Namespace.__setitem__(self, name, value)


def _refuse_underscore(name: object) -> None:
    if str(name).startswith("_"):
        raise TemplateError(f"a template may not set the attribute {name}")


def _tojson(value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: object) -> None:
    raise TemplateError(str(message))


def _new_dict(*args: Any, **items: Any) -> dict[Any, Any]:
    return dict(*args, **items)


@lru_cache(maxsize=16)
def _compiled(source: str) -> Any:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"])
    environment.filters["tojson"] = _tojson
    environment.globals.update(raise_exception=_raise_exception, dict=_new_dict, namespace=_PlainNamespace)
    return environment.from_string(source)


def render(request: dict[str, Any], size: int) -> dict[str, Any]:
    """Render one request (`template`, `variables`, `clock`).

    Args:
        request: the template's source, its variables, and the time that `strftime_now` reads (ISO format).
        size: length of the request in bytes, which limits the length of the output.

    Returns:
        A dictionary: `text`, `dated` (whether the template asked for the time) and `unstable` (whether the text holds a memory address).

    Raises:
        Exception: whatever the template raises.
    """
    dated = False

    def strftime_now(form: str) -> str:
        nonlocal dated
        dated = True
        return datetime.fromisoformat(request["clock"]).strftime(form)

    random.seed(0)
    template = _compiled(request["template"])
    parts, left = [], SPARE_CHARACTERS + 4 * size
    for part in template.generate(strftime_now=strftime_now, **request["variables"]):
        left -= len(part)
        if left < 0:
            raise OutputLimitError
        parts.append(part)
    text = "".join(parts)
    return {"text": text, "dated": dated, "unstable": _ADDRESS.search(text) is not None}


def answer(line: bytes) -> dict[str, Any]:
    """Answer a request with the result of `render`, or with `error` (the message), `refused` (by the template) and `limit` (exceeded)."""
    try:
        return render(json.loads(line), len(line))
    except TemplateError as ex:
        return {"error": str(ex) or type(ex).__name__, "refused": True, "limit": False}
    except (MemoryError, OutputLimitError, RecursionError):
        return {"error": "", "refused": False, "limit": True}
    except Exception as ex:
        return {"error": f"{type(ex).__name__}: {ex}", "refused": False, "limit": False}


def limit_process() -> Callable[[], None]:
    """Limit the memory of this process, and return a function that allows it `CPU_SECONDS` more CPU time from the moment of the call."""
    for kind, value in ((resource.RLIMIT_AS, MEMORY_BYTES), (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(OSError, ValueError):  # not every system supports every limit
            resource.setrlimit(kind, (value, resource.getrlimit(kind)[1]))
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]

    def allow_more() -> None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(used.ru_utime + used.ru_stime) + CPU_SECONDS, hard))

    return allow_more


def main() -> None:
    """Answer requests from standard input until it is closed."""
    allow_more = limit_process()
    for line in sys.stdin.buffer:
        allow_more()
        sys.stdout.write(json.dumps(answer(line)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
