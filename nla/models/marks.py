"""Marks that replace untrusted text while a chat template writes a prompt.

A template sees a mark instead of a message's text, so the text cannot change what the template writes. Afterwards each mark is replaced by
its text. A mark also shows how the template escaped it, because it contains a double quote, an accented letter and a single quote: if the
template wrote the mark as JSON, the text gets the same escapes.
"""

import html
import itertools
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from nla.support.errors import ModelError

_PROBE = "\"\u00e9'Zq"
"""End of each mark: characters that JSON, HTML and Python's `repr` escape differently, and letters of both cases."""


def _json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _ascii_json(text: str) -> str:
    return json.dumps(text)[1:-1]


def _repr(text: str) -> str:
    return repr(f"{text}\"'")[1:-4]  # a text with both kinds of quotes is always written in single quotes


_ESCAPES: tuple[Callable[[str], str], ...] = (
    str,
    _json,
    _ascii_json,
    lambda text: _json(_json(text)),
    lambda text: _json(_ascii_json(text)),
    lambda text: _ascii_json(_json(text)),
    html.escape,
    lambda text: html.escape(text).replace("&quot;", "&#34;").replace("&#x27;", "&#39;"),
    _repr,
)
"""The ways in which templates write a text: unchanged, as JSON, as JSON within JSON, as HTML, or as Python's `repr`."""
_ESCAPED_PROBES = [(escape(_PROBE), escape) for escape in _ESCAPES]


@dataclass(frozen=True)
class Piece:
    """A part of a prompt's text that comes from one place."""

    text: str
    untrusted: bool = False
    """Whether the text comes from the conversation and not from the template."""
    owner: int | None = None
    """Index of the message to which the text belongs; None for the template's own text and for descriptions of tools."""
    kept: bool = False
    """Whether this is a reply that is inserted by its original token ids; the text is then empty."""


@dataclass(frozen=True)
class _Marked:
    text: str
    owner: int | None
    is_content: bool
    kept: bool


class Marks:
    """The marks of one conversation."""

    def __init__(self, everything: str) -> None:
        """Choose a prefix for marks that does not occur in `everything` (all texts of the conversation, and the template)."""
        lowered = everything.lower()
        self._stem = next(stem for n in itertools.count() if (stem := f"Xm{n}K").lower() not in lowered)
        self._marked: list[_Marked] = []
        self._known: dict[tuple[str, int | None], str] = {}
        self._pattern = re.compile(re.escape(self._stem) + r"(\d+)k")

    def content(self, text: str, owner: int) -> str:
        """Return the mark for a message's text. White space around the text is kept around the mark, because templates strip it."""
        return self._around(text, lambda core: self._new(_Marked(core, owner, True, False)))

    def reply(self, owner: int) -> str:
        """Return the mark for a reply that is inserted by its original token ids."""
        return self._new(_Marked("", owner, True, True))

    def value(self, text: str, owner: int | None) -> str:
        """Return the mark for a name, a key, or a string in arguments. Equal strings of a message get equal marks."""

        def known(core: str) -> str:
            if (core, owner) not in self._known:
                self._known[core, owner] = self._new(_Marked(core, owner, False, False))
            return self._known[core, owner]

        return self._around(text, known)

    @staticmethod
    def _around(text: str, mark: Callable[[str], str]) -> str:
        core = text.strip()
        if not core:
            return text
        start = text.index(core)
        return text[:start] + mark(core) + text[start + len(core) :]

    def _new(self, marked: _Marked) -> str:
        self._marked.append(marked)
        return f"{self._stem}{len(self._marked) - 1:04d}k{_PROBE}"

    def pieces(self, rendered: str, required: Mapping[int, str]) -> list[Piece]:
        """Split a rendered text at its marks, and replace each mark by its text.

        Args:
            rendered: what the template wrote.
            required: role of each message, by index, whose text must appear exactly once.

        Raises:
            ModelError: the template changed, dropped or repeated a message's text.
        """
        pieces: list[Piece] = []
        written: dict[int, int] = {}
        cursor = 0
        for match in self._pattern.finditer(rendered):
            marked, escape, end = self._resolved(rendered, match)
            pieces.append(Piece(rendered[cursor : match.start()]))
            pieces.append(Piece(escape(marked.text), True, marked.owner, marked.kept))
            if marked.is_content and marked.owner is not None:
                number = int(match[1])
                written[number] = written.get(number, 0) + 1
            cursor = end
        pieces.append(Piece(rendered[cursor:]))
        if any(not piece.untrusted and self._stem.lower() in piece.text.lower() for piece in pieces):
            raise _changed("a text of the conversation")
        for number, marked in enumerate(self._marked):
            if marked.is_content and marked.owner is not None and marked.owner in required and written.get(number, 0) != 1:
                what = "drops" if number not in written else "repeats"
                raise DroppedTextError(
                    f"The chat template {what} the text of message {marked.owner} ({required[marked.owner]}); expected each text once. "
                    "Give another template with -M chat_template=FILE.",
                    marked.owner,
                )
        return [piece for piece in pieces if piece.text or piece.kept]

    def _resolved(self, rendered: str, match: re.Match[str]) -> tuple[_Marked, Callable[[str], str], int]:
        number = int(match[1])
        for probe, escape in _ESCAPED_PROBES:
            if number < len(self._marked) and rendered.startswith(probe, match.end()):
                return self._marked[number], escape, match.end() + len(probe)
        raise _changed("a text of the conversation")


class DroppedTextError(ModelError):
    """A chat template omitted a message's text or wrote it more than once."""

    def __init__(self, message: str, owner: int) -> None:
        super().__init__(message)
        self.owner = owner


def _changed(what: str) -> ModelError:
    return ModelError(
        f"The chat template changes {what} (cuts it, or changes its letters), so it cannot be separated from the template's own text; "
        "expected it unchanged, stripped, or as JSON. Give another template with -M chat_template=FILE."
    )
