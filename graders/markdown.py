"""Tables in Markdown for `inspect view`, from texts that nobody has checked."""

from collections.abc import Sequence

from nla.support.display import visible

_LONGEST = 160
_ESCAPED = {character: f"\\{character}" for character in "\\`*_[]|#~!$"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;"}


def plain_cell(text: object, limit: int | None = _LONGEST) -> str:
    """A text that Markdown shows unchanged on one line; control characters and line breaks become escapes such as `\\x0a`."""
    return "".join(_ESCAPED.get(character, character) for character in visible(text, limit=limit))


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table; every cell is shown as plain text of at most 160 characters."""
    lines = [headings, ["---"] * len(headings), *([plain_cell(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
