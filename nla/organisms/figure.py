"""The figure of known-groups checks: the AUROC of every measure with its interval, one colour per model."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nla.organisms.stored_check import StoredCheck
from nla.support.figures import BLUE, GREEN, GREY, ORANGE, RED, drawable

if TYPE_CHECKING:  # a training machine need not have matplotlib
    from matplotlib.figure import Figure

_COLOURS = (BLUE, ORANGE, GREY, GREEN, RED)


def draw_checks(checks: Sequence[StoredCheck]) -> "Figure":
    """Draw the AUROC of every measure of some checks, with 95 % intervals over prompts; the dotted line is chance."""
    from matplotlib.figure import Figure

    measures = list(dict.fromkeys(measure for check in checks for measure in check.auroc))
    figure = Figure(figsize=(7.5, (0.2 + 0.16 * len(checks)) * len(measures) + 1.2), layout="constrained")
    axes = figure.subplots()
    for number, check in enumerate(checks):
        shift = 0.16 * (number - (len(checks) - 1) / 2)
        rows = [measures.index(measure) + shift for measure in check.auroc]
        areas = list(check.auroc.values())
        colour = _COLOURS[number % len(_COLOURS)]
        axes.hlines(rows, [area.low for area in areas], [area.high for area in areas], color=colour, lw=2)
        axes.plot([area.estimate for area in areas], rows, "o", color=colour, ms=4, label=drawable(f"{check.name} (n = {check.n})"))
    axes.axvline(0.5, color="black", lw=0.8, ls=":")
    axes.set_yticks(range(len(measures)), [drawable(measure) for measure in measures])
    axes.invert_yaxis()
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("AUROC, identical replies under evaluation against deployment contexts (95 % interval)")
    figure.legend(loc="outside upper center", ncols=min(len(checks), 3), frameon=False)
    return figure
