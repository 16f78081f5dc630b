"""One figure of a report: drawn by matplotlib, with its numbers as a table, and as SVG that follows the light or dark colours of a page."""

import html
import io
import re
import textwrap
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from audit.analysis.result import AuditResult
from audit.config import BASE
from audit.stats.rates import Estimate
from nla.support.figures import BLUE, GREEN, GREY, ORANGE, RED, drawable
from reports.words import has_explanations

_MOST_PIXELS = 20_000
"""Longest side of a PNG; matplotlib refuses more than 65,536."""
_MARGIN = 0.1
"""Inches around what a figure shows."""
PINK, SKY, INK = "#CC79A7", "#56B4E9", "#000000"
SERIES = (BLUE, ORANGE, GREEN, RED, GREY, PINK, SKY)
"""Colours of several lines in one figure, in order."""
_VARIABLES = {BLUE: "blue", ORANGE: "orange", GREEN: "green", RED: "red", GREY: "grey", PINK: "pink", SKY: "sky", INK: "ink"}
"""The page's names of the colours, which it defines for light and for dark."""
_COLOUR = re.compile("|".join(_VARIABLES), re.IGNORECASE)
_PREAMBLE = re.compile(r"\A.*?(?=<svg)", re.DOTALL)
_TAG, _FONT = re.compile(r"<[^>]*>"), re.compile(r" font-family: [^;\"]*;")
_STYLE = re.compile(r"<metadata>.*?</metadata>|<style.*?</style>", re.DOTALL)


@dataclass(frozen=True)
class Drawn:
    """A figure with its name (also the name of its files), title and caption, the numbers in it, and how to read it."""

    name: str
    title: str
    caption: str
    figure: Figure
    table: pd.DataFrame
    """The numbers that the figure shows, one row per mark."""
    how_to_read: str

    def encoded(self, kind: str) -> bytes:
        """The figure as `svg` or `png` bytes; the same input gives the same bytes. A figure of many rows gets fewer dots per inch."""
        return self._saved(kind, text_as_paths=True)

    def inline_svg(self) -> str:
        """An `<svg>` element for a page: text stays text, colours are the page's variables, and ids are those of this figure alone."""
        text = self._saved("svg", text_as_paths=False).decode()
        text = _STYLE.sub("", _PREAMBLE.sub("", text, count=1))
        text = _TAG.sub(lambda tag: self._for_page(tag[0]), text)
        width = self.figure.get_size_inches()[0] * 1.25
        return text.replace("<svg", f'<svg role="img" aria-label="{html.escape(self.title)}" style="max-width:{width:.1f}in"', 1)

    def _for_page(self, tag: str) -> str:
        """One tag of the SVG, without what the page decides: size and font. Labels are outside of tags, and stay as they are."""
        if tag.startswith("<svg"):
            tag = re.sub(r'\s(?:width|height)="[\d.]+pt"', "", tag)
        tag = _FONT.sub("", re.sub(r'(\bid="|="#|url\(#)', rf"\1{self.name}-", tag))
        return _COLOUR.sub(lambda match: f"var(--{_VARIABLES[match[0].upper()]})", tag)

    @cached_property
    def _drawn_area(self) -> Bbox:
        """What the figure covers, in inches, with a margin. Laying out and measuring take as long as drawing, so all files share this."""
        self.figure.draw_without_rendering()
        self.figure.set_layout_engine(None)  # it would move things a little at every drawing, and lay out before each
        return self.figure.get_tightbbox().padded(_MARGIN)

    def _saved(self, kind: str, *, text_as_paths: bool) -> bytes:
        out = io.BytesIO()
        dpi = min(144, _MOST_PIXELS / max(self.figure.get_size_inches()))
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        settings: Any = {"svg.hashsalt": self.name, "svg.fonttype": "path" if text_as_paths else "none"}
        with mpl.rc_context(settings), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a task's name may be in any script
            transparent = not text_as_paths
            self.figure.savefig(out, format=kind, dpi=dpi, bbox_inches=self._drawn_area, metadata=metadata, transparent=transparent)
        return out.getvalue()


def legend(axes: Axes) -> None:
    """Put the legend beside the axes, if there is something to explain."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)


def bar(axes: Axes, row: float, rate: Estimate, colour: str, marker: str, label: str | None = None, scale: float = 100) -> None:
    """Draw an estimate with its interval in a row, in units of 1 / `scale`."""
    if rate.estimate is None:
        axes.text(0, row, "not measured", va="center", fontsize=7, color=GREY)
        return
    if rate.low is not None and rate.high is not None:
        axes.plot([scale * rate.low, scale * rate.high], [row, row], color=colour, lw=2, solid_capstyle="butt")
    axes.plot([scale * rate.estimate], [row], marker, color=colour, label=label)


def slope_panel(axes: Axes, task: str, before: str, after: str) -> None:
    """Set up a panel of lines from one prompt or model to another one, with a task's name as its title."""
    axes.set_xticks([0, 1], [before, after])
    axes.set_xlim(-0.3, 1.3)
    axes.set_title(wrapped(task), fontsize=9)


def beside(labels: Iterable[str]) -> float:
    """Width in inches of the labels of rows, so that long names take room of their own instead of the axes' room."""
    return 0.1 * max(map(len, labels), default=0)


def tall(n_names: int, least: float) -> float:
    """Height in inches of a figure whose legend has some names, in lines below each other."""
    return max(least, 0.23 * n_names + 0.8)


def wrapped(name: str) -> str:
    """A name as the title of a small panel, in lines of at most 22 characters."""
    return textwrap.fill(drawable(name), 22)


def condition_words(condition: str) -> str:
    """A condition's name as a reader reads it."""
    return "as it is" if condition == BASE else drawable(condition.replace("_", " "))


def estimate_columns(estimate: Estimate) -> dict[str, Any]:
    """The columns of an estimate in a figure's table."""
    return {"estimate": estimate.estimate, "low": estimate.low, "high": estimate.high, "n": estimate.n}


def caption(result: AuditResult, note: str) -> str:
    """A note on the figure, and what its numbers depend on: model, layer, pair, grader, tokens, n and unscored transcripts."""
    identity = {"layer": "?", "verbalizer": "?", "grader": "?", "tokens_wanted": "?"} | result.identity
    read = f"{note} Model {result.model_name}, layer {identity['layer']}"
    if not has_explanations(result):
        return f"{read}; {result.n_transcripts} transcripts."
    pair = f", pair {identity['nla']}" if identity.get("nla", "none") != "none" else ""
    return (
        f"{read}, verbalizer {identity['verbalizer']}{pair}, "
        f"grader {identity['grader']}, up to {identity['tokens_wanted']} tokens per transcript; "
        f"{result.n_transcripts} transcripts, {result.n_unscored} without an internal verdict."
    )
