"""The training curves of a pair: a small table that ships with it (`curves.csv`), and the figure of that table (`curves.png`)."""

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from nla.support.files import replacing

if TYPE_CHECKING:  # a training machine need not have matplotlib
    from matplotlib.figure import Figure

TABLE_FILE, FIGURE_FILE = "curves.csv", "curves.png"
_WINDOW = 10
"""Figures that are recorded at every step are shown as the mean of this many steps."""
_PANELS = {
    "av": ("AV: nats per token", ("loss", "heldout_nats", "heldout_nats_shuffled")),
    "ar": ("AR: fve_nrm, held-out documents", ("heldout_fve_gold", "heldout_fve_sampled")),
    "rl": ("RL: fve_nrm, held-out documents; reward", ("heldout_fve", "reward")),
}
_NAMES = {
    "loss": "training",
    "heldout_nats": "held out",
    "heldout_nats_shuffled": "held out, another vector",
    "heldout_fve_gold": "teacher's explanation",
    "heldout_fve_sampled": "AV's own explanation",
    "heldout_fve": "round trip",
    "reward": f"reward, mean of {_WINDOW} steps",
}


@runtime_checkable
class Point(Protocol):
    """A point of a curve; the audit's own record of one has the same fields."""

    @property
    def stage(self) -> str:
        """`av`, `ar` or `rl`."""
        ...

    @property
    def step(self) -> int:
        """Number of steps done."""
        ...

    @property
    def name(self) -> str:
        """The figure's name in `metrics.jsonl`."""
        ...

    @property
    def value(self) -> float:
        """The figure's value, or its mean over the last steps."""
        ...


@dataclass(frozen=True)
class CurvePoint:
    """A row of `curves.csv`; see `Point`."""

    stage: str
    step: int
    name: str
    value: float


COLUMNS = tuple(field.name for field in fields(CurvePoint))
"""Columns of `curves.csv`."""


def write_curves(work: Path, pair: Path, say: Callable[[str], None] = lambda _: None) -> None:
    """Write `curves.csv`, and `curves.png` where matplotlib is installed, of all trained stages of a working folder.

    Args:
        work: the working folder of `nla train`.
        pair: the finished pair's folder, which the files are written into.
        say: receives a line where the figure is not drawn.

    Raises:
        DataError: a file cannot be written.
    """
    points = list(collect(work))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([COLUMNS, *map(astuple, points)])
    with replacing(pair / TABLE_FILE) as scratch:
        scratch.write_text(text.getvalue(), encoding="utf-8")
    try:
        figure = draw_curves(points)
    except ModuleNotFoundError:
        say(f"matplotlib is not installed, so {FIGURE_FILE} was not drawn; {pair / TABLE_FILE} has its figures.")
        return
    with replacing(pair / FIGURE_FILE) as scratch:
        figure.savefig(scratch, dpi=144, format="png", bbox_inches="tight", metadata={"Software": None})


def collect(work: Path) -> Iterator[CurvePoint]:
    """Yield the stages' metrics: held-out figures as they are, other figures as means of ten steps, rounded to four digits."""
    from nla.training.checkpoints import read_metrics

    for stage, (_, names) in _PANELS.items():
        metrics = read_metrics(work / stage)
        for name in names:
            series = [(int(row["step"]), row[name]) for row in metrics if row.get(name) is not None and row[name] == row[name]]
            for step, value in series if name.startswith("heldout_") else _means(series):
                yield CurvePoint(stage, step, name, round(value, 4))


def _means(series: list[tuple[int, float]]) -> Iterator[tuple[int, float]]:
    """Yield the mean of each window of steps, at the window's last step."""
    last = max((step for step, _ in series), default=0)
    windows: dict[int, list[float]] = {}
    for step, value in series:
        windows.setdefault(min(-(-step // _WINDOW) * _WINDOW, last), []).append(value)
    for step, values in windows.items():
        yield step, fmean(values)


def draw_curves(points: Iterable[Point]) -> "Figure":
    """Draw one panel per stage.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    points = list(points)
    stages = [stage for stage in _PANELS if any(point.stage == stage for point in points)]
    figure = Figure(figsize=(4.2 * max(len(stages), 1), 3.2))
    for axes, stage in zip(figure.subplots(1, max(len(stages), 1), squeeze=False)[0], stages, strict=False):
        title, names = _PANELS[stage]
        for name in names:
            curve = [(point.step, point.value) for point in points if (point.stage, point.name) == (stage, name)]
            if curve:
                marker = "o" if name.startswith("heldout_") else ""
                axes.plot(*zip(*curve, strict=True), label=_NAMES[name], marker=marker, ms=3, lw=1)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("step")
        axes.legend(frameon=False, fontsize=8)
    return figure
