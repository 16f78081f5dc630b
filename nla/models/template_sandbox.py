"""Render chat templates in a separate process with limits on time, memory and output, because a template is code of the model's author."""

import atexit
import json
import os
import selectors
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from nla.models import template_worker
from nla.support.display import visible
from nla.support.errors import ModelError

WALL_SECONDS = 3.5
"""Longest wait for a rendering, in seconds. The worker's limit on CPU time usually ends a template that does not finish earlier."""
_LONGEST_REASON = 200

_ENVIRONMENT = ("LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "TZ", "VIRTUAL_ENV")
"""Environment variables that the worker process gets."""


class TemplateRefusedError(ModelError):
    """A chat template raised an error to refuse a conversation."""


@dataclass(frozen=True)
class Rendered:
    """The output of a chat template."""

    text: str
    dated: bool
    """Whether the template asked for the current time."""
    unstable: bool
    """Whether the text holds a memory address, which differs between runs."""


class _Worker:
    """The worker process. It starts with the first request, and starts again after a limit has ended it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._lock = threading.Lock()

    def ask(self, request: bytes) -> dict[str, Any] | None:
        """Send a request and return its answer, or None if a limit ended the worker."""
        with self._lock:
            for _attempt in range(2):
                process = self._running()
                assert process.stdin is not None
                try:
                    process.stdin.write(request + b"\n")
                    process.stdin.flush()
                except BrokenPipeError:  # another process has ended the worker since the last request
                    self._end()
                    continue
                line = _line_of(process)
                if line is None:
                    self._end()
                    return None
                answer: dict[str, Any] = json.loads(line)
                if answer.get("limit"):
                    self._end()
                return answer
            return None

    def close(self) -> None:
        """End the worker, if this process started one."""
        with self._lock:
            self._end()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._owner != os.getpid() or self._process.poll() is not None:
            self._end()
            self._owner = os.getpid()
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(Path(template_worker.__file__))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                # No token or key reaches a foreign template, and sets are always written in the same order.
                env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ} | {"PYTHONHASHSEED": "0"},
                start_new_session=True,  # Ctrl-C must not end the worker, since the command may still need it
            )
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            with suppress(OSError):
                if stream is not None:
                    stream.close()


def _line_of(process: subprocess.Popen[bytes]) -> bytes | None:
    """Read a line of the worker's output. Return None if the worker ended, or if the line took longer than `WALL_SECONDS`."""
    assert process.stdout is not None
    line = bytearray()
    deadline = time.monotonic() + WALL_SECONDS
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not line.endswith(b"\n"):
            if not selector.select(max(deadline - time.monotonic(), 0)):
                return None
            chunk = os.read(process.stdout.fileno(), 1 << 16)
            if not chunk:
                return None
            line += chunk
    return bytes(line)


_worker = _Worker()
atexit.register(_worker.close)


def render_template(source: str, variables: dict[str, Any], clock: datetime) -> Rendered:
    """Render a chat template.

    Args:
        source: the template, in Jinja.
        variables: the variables that the template sees; JSON types only.
        clock: the time that `strftime_now` reads, so that a prompt with a date can be written again later.

    Raises:
        TemplateRefusedError: the template raised an error itself, or it is not valid Jinja.
        ModelError: the template failed for another reason, or exceeded a limit on time, memory or output.
    """
    answer = _worker.ask(json.dumps({"template": source, "variables": variables, "clock": clock.isoformat()}).encode())
    if answer is None or answer.get("limit"):
        raise ModelError(
            f"The chat template was stopped: it needs more than {template_worker.CPU_SECONDS} s or "
            f"{template_worker.MEMORY_BYTES >> 20} MiB, or writes far more text than the conversation has. "
            "Give another template with -M chat_template=FILE."
        )
    if "error" in answer:
        kind = TemplateRefusedError if answer["refused"] else ModelError
        raise kind(
            f"The chat template refuses this conversation: {visible(answer['error'], limit=_LONGEST_REASON)}. "
            "Change the conversation, or give another template with -M chat_template=FILE."
        )
    return Rendered(answer["text"], answer["dated"], answer["unstable"])
