"""The figure of known-groups checks: the AUROC of every measure with its interval, one colour per model."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nla.support.display import visible
from nla.support.errors import DataError, first_line
from nla.support.figures import BLUE, GREEN, GREY, ORANGE, RED, drawable

if TYPE_CHECKING:  # a training machine need not have matplotlib
    from matplotlib.figure import Figure

_COLOURS = (BLUE, ORANGE, GREY, GREEN, RED)
_MOST_CHARACTERS = 10_000_000
"""Characters of a file; a check has about ten thousand."""


class _Interval(BaseModel):
    model_config = ConfigDict(frozen=True)

    estimate: float = Field(ge=0, le=1)
    low: float = Field(ge=0, le=1)
    high: float = Field(ge=0, le=1)
    n: int = Field(ge=1)


class StoredCheck(BaseModel):
    """What the figure needs of a file that `nla organism check --json` wrote."""

    model_config = ConfigDict(frozen=True)

    model: dict[str, Any]
    layer: int
    n: int
    auroc: dict[str, _Interval] = Field(min_length=1)

    @property
    def name(self) -> str:
        """The organism's or the model's name."""
        return str(self.model.get("adapter") or self.model.get("model") or "?")


def read_check(path: Path) -> StoredCheck:
    """Read a check from its JSON file.

    Raises:
        DataError: the file cannot be read, or no check wrote it.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if len(text) > _MOST_CHARACTERS:
            raise DataError(f"{visible(path)} has {len(text)} characters; expected a file that `nla organism check --json` wrote.")
        return StoredCheck.model_validate(json.loads(text))
    except ValidationError as ex:
        where = ".".join(map(str, ex.errors()[0]["loc"]))
        raise DataError(
            f"{visible(path)} is no known-groups check ({visible(where)}: {visible(ex.errors()[0]['msg'])}); "
            "make one with `nla organism check MODEL --json FILE`."
        ) from ex
    except (OSError, ValueError, RecursionError) as ex:
        raise DataError(f"{visible(path)} cannot be read: {first_line(ex)}") from ex


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
