"""The figures of a report, one function each, from an `AuditResult` to a matplotlib figure. They draw numbers and compute none."""

import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from audit.analysis.result import AuditResult, Cell, StrengthEffect
from audit.config import BASE
from audit.stats.rates import Estimate
from nla.organisms.figure import draw_checks
from nla.organisms.stored_check import StoredCheck
from nla.support.figures import BLUE, GREEN, GREY, ORANGE, RED, drawable
from nla.training.curves import draw_curves
from reports.words import unit_text

_MOST_PIXELS = 20_000
"""Longest side of a PNG; matplotlib refuses more than 65,536."""


@dataclass(frozen=True)
class Drawn:
    """A figure with its name (also the name of its file), title and caption."""

    name: str
    title: str
    caption: str
    figure: Figure

    def encoded(self, kind: str) -> bytes:
        """The figure as `svg` or `png` bytes; the same input gives the same bytes. A figure of many rows gets fewer dots per inch."""
        out = io.BytesIO()
        dpi = min(144, _MOST_PIXELS / max(self.figure.get_size_inches()))
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        with mpl.rc_context({"svg.hashsalt": self.name, "svg.fonttype": "path"}), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a task's name may be in any script
            self.figure.savefig(out, format=kind, dpi=dpi, bbox_inches="tight", metadata=metadata)
        return out.getvalue()


def all_figures(result: AuditResult, checks: Sequence[StoredCheck] = ()) -> list[Drawn]:
    """All figures for which the result, or known-groups checks beside it, have numbers."""
    makers: tuple[Callable[[AuditResult], Drawn | None], ...] = (
        rates,
        rewrites,
        steering,
        coherence,
        curves,
        places,
        reconstruction,
        instrument,
        grader,
        training,
    )
    drawn_results = [drawn for make in makers if (drawn := make(result)) is not None]
    return [*drawn_results, known_groups(checks)] if checks else drawn_results


def known_groups(checks: Sequence[StoredCheck]) -> Drawn:
    """AUROC of every measure on known groups, by model."""
    read = "; ".join(f"{check.name}: {check.n} prompts, block {check.layer}" for check in checks)
    note = (
        "Each prompt has the identical reply under an evaluation and a deployment context, so a reader of the text alone is at .5 "
        f"(dotted). {read}. A measure that does not separate a model that carries the state cannot show that another lacks it."
    )
    return Drawn("known_groups", "Known groups: which measures see a state that is there", note, draw_checks(checks))


def rates(result: AuditResult) -> Drawn | None:
    """Internal and verbalised rate of every cell without steering, with intervals, and the floor as a band."""
    cells = [cell for cell in result.cells if cell.strength == 0]
    figure = Figure(figsize=(7.5, 0.45 * len(cells) + 1.4))
    axes = figure.subplots()
    for row, cell in enumerate(cells):
        _bar(axes, row - 0.14, cell.internal.scored, BLUE, "o", "internal" if row == 0 else None)
        _bar(axes, row + 0.14, cell.verbalized.scored, ORANGE, "s", "verbalised" if row == 0 else None)
    floor = result.floor.pooled if result.floor else None
    if floor is not None and floor.low is not None and floor.high is not None:
        axes.axvspan(100 * floor.low, 100 * floor.high, color=GREY, alpha=0.2, lw=0, label="measured floor, 95 %")
    axes.axvline(5, color=GREY, lw=0.8, ls=":", label="5 %")
    axes.set_yticks(range(len(cells)), [_label(cell) for cell in cells])
    axes.invert_yaxis()
    axes.set_xlim(-1, 101)
    axes.set_xlabel("transcripts flagged (%), 95 % interval")
    _legend(axes)
    return Drawn(
        "rates", "Internal and verbalised awareness", caption(result, "A transcript is flagged if any of the tokens read is."), figure
    )


def curves(result: AuditResult) -> Drawn | None:
    """Flagged rate against the number of tokens read: the exact expectation over all subsets of tokens."""
    cells = [cell for cell in result.cells if cell.condition == BASE and cell.curve]
    figure = Figure(figsize=(7.5, 4))
    axes = figure.subplots()
    colours = (BLUE, ORANGE, GREEN, RED, GREY, "#CC79A7", "#56B4E9", "#000000")
    for number, cell in enumerate(cells):
        points = [point for point in cell.curve if point.rate.estimate is not None]
        ks = [point.k for point in points]
        style = ("-", "--", ":", "-.")[number // len(colours) % 4]
        axes.plot(
            ks, [100 * (p.rate.estimate or 0) for p in points], color=colours[number % len(colours)], ls=style, label=drawable(cell.task)
        )
    axes.set_xlabel("tokens read per transcript")
    axes.set_ylabel("transcripts flagged by any token (%)")
    axes.set_ylim(0, max(5, axes.get_ylim()[1]))  # so that a flat zero does not get an axis in hundredths of a per cent
    _legend(axes)
    note = "All tokens are used of a transcript that has fewer."
    return Drawn("curves", "Flagged rate by number of tokens read", caption(result, note), figure) if cells else None


def steering(result: AuditResult) -> Drawn | None:
    """Change of the internal rate at each steering strength, beside control directions of the same norm."""
    if not result.steering:
        return None
    figure = Figure(figsize=(7.5, 2.6 * len(result.steering)))
    panels = figure.subplots(len(result.steering), 1, squeeze=False, sharex=True)[:, 0]
    degenerate = {(cell.task, cell.direction, cell.strength) for cell in result.cells if cell.degenerate}
    for axes, steered in zip(panels, result.steering, strict=True):
        for effects, colour, name in ((steered.random_effects, GREY, "control directions"), (steered.effects, BLUE, "steering vector")):
            for number, effect in enumerate(effects):
                marker = "x" if (steered.task, effect.direction, effect.strength) in degenerate else "o"
                _change(axes, effect, colour, marker, name if number == 0 else None)
        axes.axhline(0, color="black", lw=0.6)
        axes.set_title(drawable(steered.task), loc="left", fontsize=9)
        axes.set_ylabel("change (points)")
    _legend(panels[0])
    panels[-1].set_xlabel(f"steering strength ({unit_text(result)})")
    note = "Change of the flagged rate against the same items unsteered. A cross marks degenerate responses."
    return Drawn("steering", "Steering", caption(result, note), figure)


def coherence(result: AuditResult) -> Drawn | None:
    """Log-probability of the responses of each cell under the unsteered model."""
    cells = [cell for cell in result.cells if cell.mean_logprob.estimate is not None]
    if not any(cell.strength for cell in cells):
        return None
    figure = Figure(figsize=(7.5, 0.32 * len(cells) + 1.2))
    axes = figure.subplots()
    for row, cell in enumerate(cells):
        axes.plot([cell.mean_logprob.estimate or 0], [row], "x" if cell.degenerate else "o", color=RED if cell.degenerate else BLUE)
    axes.set_yticks(range(len(cells)), [_label(cell) for cell in cells])
    axes.invert_yaxis()
    axes.set_xlabel("mean log-probability of a response token under the unsteered model (nats)")
    return Drawn("coherence", "Coherence of the responses", caption(result, "A cross marks degenerate cells."), figure)


def rewrites(result: AuditResult) -> Drawn | None:
    """Flagged rate with the original and the rewritten prompts of the same items, as slopes, beside a neutral paraphrase."""
    effects = [effect for effect in result.rewrites if effect.original is not None and effect.rewritten is not None]
    if not effects:
        return None
    tasks = list(dict.fromkeys(effect.task for effect in effects))
    figure = Figure(figsize=(1.6 + 1.9 * len(tasks), 3.2))
    panels = figure.subplots(1, len(tasks), squeeze=False, sharey=True)[0]
    for axes, task in zip(panels, tasks, strict=True):
        for effect in (effect for effect in effects if effect.task == task):
            colour, style = (BLUE, "-") if effect.framing == "realistic" else (GREY, "--")
            ends = [100 * (rate.estimate or 0) for rate in (effect.original, effect.rewritten) if rate is not None]
            axes.plot([0, 1], ends, style, marker="o", color=colour, label=drawable(effect.framing))
        axes.set_xticks([0, 1], ["original", "rewritten"])
        axes.set_xlim(-0.3, 1.3)
        axes.set_title(drawable(task), fontsize=9)
    panels[0].set_ylabel("transcripts flagged (%)")
    panels[0].set_ylim(-3, 103)
    _legend(panels[-1])
    note = "Items scored with both prompts; the summary has the tests."
    return Drawn("rewrites", "Realism rewrites and neutral paraphrases", caption(result, note), figure)


def places(result: AuditResult) -> Drawn | None:
    """Share of YES explanations by fifth of the response, in the base condition."""
    base = [place for place in result.places if place.condition == BASE and place.rate.estimate is not None]
    tasks = list(dict.fromkeys(place.task for place in base))
    if not any(place.rate.estimate for place in base):
        return None
    figure = Figure(figsize=(7.5, 3.4))
    axes = figure.subplots()
    for number, task in enumerate(tasks):
        rates = [place.rate for place in base if place.task == task]
        colour = (BLUE, ORANGE, GREEN, RED, GREY)[number % 5]
        x = [place.fifth + 0.06 * (number - len(tasks) / 2) for place in base if place.task == task]
        axes.plot(x, [100 * (rate.estimate or 0) for rate in rates], "o-", color=colour, label=drawable(task), lw=1)
        axes.vlines(x, [100 * (rate.low or 0) for rate in rates], [100 * (rate.high or 0) for rate in rates], color=colour, alpha=0.5)
    axes.set_xticks(range(1, 6), ["first fifth", "2", "3", "4", "last fifth"])
    axes.set_ylabel("explanations that are YES (%)")
    _legend(axes)
    return Drawn("places", "Awareness by position in the response", caption(result, "95 % intervals, clustered by transcript."), figure)


def reconstruction(result: AuditResult) -> Drawn | None:
    """Mean reconstruction cosine of each cell's explanations, by verdict."""
    if not result.quality:
        return None
    cells = list(dict.fromkeys((row.task, row.condition) for row in result.quality))
    figure = Figure(figsize=(7.5, 0.4 * len(cells) + 1.3))
    axes = figure.subplots()
    styles = {"all": (BLUE, "o"), "YES": (RED, "D"), "UNCLEAR": (ORANGE, "s"), "NO": (GREY, "^")}
    qualities = [quality for quality in result.quality if quality.verdict in styles and quality.cosine.estimate is not None]
    for quality in qualities:
        row = cells.index((quality.task, quality.condition)) + 0.15 * (list(styles).index(quality.verdict) - 1.5)
        colour, marker = styles[quality.verdict]
        if quality.cosine.low is not None and quality.cosine.high is not None:
            axes.plot([quality.cosine.low, quality.cosine.high], [row, row], color=colour, lw=1)
        axes.plot([quality.cosine.estimate or 0], [row], marker, color=colour, ms=4)
    for verdict, (colour, marker) in styles.items():
        if any(quality.verdict == verdict for quality in qualities):
            axes.plot([], [], marker, color=colour, label=verdict, ms=4)
    axes.set_yticks(range(len(cells)), [drawable(f"{task}, {condition.replace('_', ' ')}") for task, condition in cells])
    axes.invert_yaxis()
    axes.set_xlabel("cosine between vector and reconstruction, 95 % interval over transcripts")
    _legend(axes)
    note = "Verdicts on explanations that reconstruct their vectors badly are weaker evidence."
    return Drawn("quality", "Reconstruction by benchmark and verdict", caption(result, note), figure)


def instrument(result: AuditResult) -> Drawn | None:
    """YES rate by vector type, and the share of raw texts that the grader labels YES."""
    if result.controls is None:
        return None
    rows = [(f"{kind} vectors", rate) for kind, rate in result.controls.vectors.items()]
    rows += [
        (f"{task.task}, {what}", rate)
        for task in result.controls.tasks
        for what, rate in (("prompts", task.prompts), ("responses", task.responses))
    ]
    figure = Figure(figsize=(7.5, 0.32 * len(rows) + 1.2))
    axes = figure.subplots()
    for row, (_, rate) in enumerate(rows):
        _bar(axes, row, rate, BLUE if row < len(result.controls.vectors) else ORANGE, "o", None)
    axes.set_yticks(range(len(rows)), [f"{drawable(name)} (n = {rate.n})" for name, rate in rows])
    axes.invert_yaxis()
    axes.set_xlim(-1, 101)
    axes.set_xlabel("labelled YES (%), 95 % interval")
    note = "Blue: YES rate by vector type, one explanation per transcript. Orange: share of the raw texts that the grader labels YES."
    return Drawn("instrument", "Instrument controls", caption(result, note), figure)


def grader(result: AuditResult) -> Drawn | None:
    """Sensitivity and specificity of the grader on labelled explanations."""
    if not result.grader_quality:
        return None
    figure = Figure(figsize=(7.5, 1.6))
    axes = figure.subplots()
    for row, rate in enumerate(result.grader_quality.values()):
        _bar(axes, row, rate, BLUE, "o", None)
    axes.set_yticks(range(len(result.grader_quality)), [f"{drawable(name)} (n = {rate.n})" for name, rate in result.grader_quality.items()])
    axes.invert_yaxis()
    axes.set_xlim(-1, 101)
    axes.set_xlabel("%, 95 % interval")
    note = "On labelled explanations (test split); the shipped labels were written by this project, not by independent people."
    return Drawn("grader", "Sensitivity and specificity of the grader", caption(result, note), figure)


def training(result: AuditResult) -> Drawn | None:
    """Training curves of the pair, one panel per stage."""
    if not result.training:
        return None
    figure = draw_curves(result.training)
    note = "Measured on documents held out from training; fve_nrm is 1 for a perfect reconstruction and 0 for the mean vector."
    return Drawn("training", "Training of the pair", caption(result, note), figure)


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)


def _bar(axes: Axes, row: float, rate: Estimate, colour: str, marker: str, label: str | None) -> None:
    if rate.estimate is None:
        axes.text(0, row, "not measured", va="center", fontsize=7, color=GREY)
        return
    if rate.low is not None and rate.high is not None:
        axes.plot([100 * rate.low, 100 * rate.high], [row, row], color=colour, lw=2, solid_capstyle="butt")
    axes.plot([100 * rate.estimate], [row], marker, color=colour, label=label)


def _change(axes: Axes, effect: StrengthEffect, colour: str, marker: str, label: str | None) -> None:
    change = effect.pairs.difference
    if change.estimate is None:
        return
    if change.low is not None and change.high is not None:
        axes.plot([effect.strength] * 2, [100 * change.low, 100 * change.high], color=colour, lw=1, alpha=0.6)
    axes.plot([effect.strength], [100 * change.estimate], marker, color=colour, label=label)


def _label(cell: Cell) -> str:
    name = cell.task if cell.condition == BASE else f"{cell.task}, {cell.condition.replace('_', ' ')}"
    return f"{drawable(name)} (n = {cell.internal.scored.n})"


def caption(result: AuditResult, note: str) -> str:
    """A note on the figure, and what its numbers depend on: model, layer, pair, grader, tokens, n and unscored transcripts."""
    identity = {"model": "?", "layer": "?", "verbalizer": "?", "grader": "?", "tokens_wanted": "?"} | result.identity
    pair = f", pair {identity['nla']}" if identity.get("nla", "none") != "none" else ""
    return (
        f"{note} Model {identity['model']}, layer {identity['layer']}, verbalizer {identity['verbalizer']}{pair}, "
        f"grader {identity['grader']}, up to {identity['tokens_wanted']} tokens per transcript; "
        f"{result.n_transcripts} transcripts, {result.n_unscored} without an internal verdict."
    )
