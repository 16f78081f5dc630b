"""Thinking blocks in a model's raw reply, read as Inspect's own `parse_content_with_reasoning` reads them.

Blocks may be nested, may follow other text, and may have been opened by the prompt. A block that is never closed is ordinary text for
Inspect's parser, and so it is here, with one exception: where the prompt had opened the block, the reply is all thinking.
"""

import re
from dataclasses import dataclass

from nla.models.chat_template import THINK_CLOSE, THINK_OPEN

_TAG = re.compile(r"<think([^>]*)>|</think>")
_SUMMARY = re.compile(r"<summary>(.*?)</summary>\s*", re.DOTALL)


@dataclass(frozen=True)
class ThinkingBlock:
    """Character positions of a thinking block in a reply's text; the text between `inner_start` and `inner_end` is the thinking."""

    start: int
    inner_start: int
    inner_end: int
    end: int


def thinking_block(text: str, opened: bool = False) -> ThinkingBlock | None:
    """Return the thinking block of a raw reply, if it has one.

    Args:
        text: the reply's text.
        opened: whether the prompt had opened the block.
    """
    added = len(THINK_OPEN) if opened else 0
    block = _block(f"{THINK_OPEN}{text}" if opened else text)
    if block is None:
        return ThinkingBlock(0, 0, len(text), len(text)) if opened else None
    return ThinkingBlock(*(max(position - added, 0) for position in (block.start, block.inner_start, block.inner_end, block.end)))


def _block(text: str) -> ThinkingBlock | None:
    """The first block whose tags are balanced; if none is, from the first opening tag to the first closing tag after it."""
    opening: re.Match[str] | None = None
    first_close: re.Match[str] | None = None
    depth = 0
    for tag in _TAG.finditer(text):
        if tag[0] != THINK_CLOSE:
            opening = opening or tag
            depth += 1
        elif opening is not None:
            first_close = first_close or tag
            depth -= 1
            if depth == 0:
                return ThinkingBlock(opening.start(), opening.end(), tag.start(), tag.end())
    if opening is None or first_close is None:
        return None
    return ThinkingBlock(opening.start(), opening.end(), first_close.start(), first_close.end())


def split_thinking(text: str, opened: bool = False) -> tuple[str, str]:
    """Return the thinking and the answer of a raw reply, both stripped as Inspect's parser strips them.

    Args:
        text: the reply's text.
        opened: whether the prompt had opened the thinking block.
    """
    block = thinking_block(text, opened)
    if block is None:
        return "", text
    return text[block.inner_start : block.inner_end].strip(), (text[: block.start] + text[block.end :]).strip()


def split_summary(thinking: str) -> tuple[str, str | None]:
    """Return thinking without its first `<summary>` block, and the text of that block, which Inspect's parser keeps apart; None without."""
    summary = _SUMMARY.search(thinking)
    if summary is None:
        return thinking, None
    return (thinking[: summary.start()] + thinking[summary.end() :]).strip(), summary[1]
