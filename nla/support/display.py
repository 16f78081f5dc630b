"""Foreign text on a terminal: nothing in it acts as a control sequence, changes the reading direction, or is read as rich markup.

Names of models, tasks, annotators and files, explanations and error messages of libraries may hold any character. Every table cell,
title and message that shows such a text goes through `visible` or `plain`.
"""

import unicodedata

from rich.text import Text

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories shown as escapes: control, format (zero-width and bidirectional), lone surrogates, line and paragraph separators."""
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Characters of other categories that print as nothing."""


def visible(text: object, *, lines: bool = False, limit: int | None = None) -> str:
    r"""Return a text in which every character that acts on a terminal, or cannot be seen, is an escape such as `\x1b` or `\u202e`.

    Args:
        text: any object; its `str` is shown.
        lines: keep newlines and tabs as they are.
        limit: longest result, in characters; a longer text loses its middle, which is marked by an ellipsis.
    """
    shown = str(text)
    if limit is not None and len(shown) > 2 * limit:  # the middle is dropped below; this keeps the work small
        shown = shown[:limit] + shown[-limit:]
    if not shown.isprintable() or not shown.isascii():
        shown = "".join(_shown(character, lines) for character in shown)
    if limit is not None and len(shown) > limit:
        half = (limit - 1) // 2
        shown = f"{shown[: limit - 1 - half]}…{shown[len(shown) - half :]}"
    return shown


def _shown(character: str, lines: bool) -> str:
    if lines and character in "\n\t":
        return character
    if unicodedata.category(character) not in _HIDDEN and character not in _BLANK:
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def plain(text: object, style: str = "", *, lines: bool = False, limit: int | None = None) -> Text:
    """Return `visible(text)` as a rich text, in which square brackets are never markup.

    Args:
        text: any object; its `str` is shown.
        style: rich style of the whole text, e.g. `dim`.
        lines: keep newlines and tabs as they are.
        limit: longest result, in characters.
    """
    return Text(visible(text, lines=lines, limit=limit), style=style)
