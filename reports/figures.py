"""The figures of a report, one function each: `AuditResult` in, matplotlib figure out. They draw numbers and compute none."""

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from audit.analysis.result import AuditResult, Cell, StrengthEffect
from audit.config import BASE
from audit.stats.rates import Estimate
from nla.training.curves import draw_curves

# Okabe and Ito's palette, which people with any common colour blindness can tell apart.
BLUE, ORANGE, GREY, GREEN, RED = "#0072B2", "#E69F00", "#777777", "#009E73", "#D55E00"


@dataclass(frozen=True)
class Drawn:
    """A figure with its name (also its file's) and caption."""

    name: str
    title: str
    caption: str
    figure: Figure

    def encoded(self, kind: str) -> bytes:
        """The figure as `svg` or `png` bytes; the same input gives the same bytes."""
        out = io.BytesIO()
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        with mpl.rc_context({"svg.hashsalt": self.name, "svg.fonttype": "path"}), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a task's name may be in any script
            self.figure.savefig(out, format=kind, dpi=144, bbox_inches="tight", metadata=metadata)
        return out.getvalue()


def all_figures(result: AuditResult) -> list[Drawn]:
    """Every figure the result has numbers for."""
    makers: tuple[Callable[[AuditResult], Drawn | None], ...] = (
        rates,
        rewrites,
        steering,
        coherence,
        curves,
        places,
        quality,
        instrument,
        grader,
        training,
    )
    return [drawn for make in makers if (drawn := make(result)) is not None]


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
    return Drawn("rates", "Internal and verbalised awareness", caption(result, "Any of the tokens read counts."), figure)


def curves(result: AuditResult) -> Drawn | None:
    """Flagged rate against the number of tokens read, by exact expectation over subsets."""
    cells = [cell for cell in result.cells if cell.condition == BASE and cell.curve]
    figure = Figure(figsize=(7.5, 4))
    axes = figure.subplots()
    colours = (BLUE, ORANGE, GREEN, RED, GREY, "#CC79A7", "#56B4E9", "#000000")
    for number, cell in enumerate(cells):
        points = [point for point in cell.curve if point.rate.estimate is not None]
        ks = [point.k for point in points]
        style = ("-", "--", ":", "-.")[number // len(colours) % 4]
        axes.plot(
            ks, [100 * (p.rate.estimate or 0) for p in points], color=colours[number % len(colours)], ls=style, label=shown(cell.task)
        )
    axes.set_xlabel("tokens read, k")
    axes.set_ylabel("transcripts flagged by any of k (%)")
    axes.set_ylim(0, max(5, axes.get_ylim()[1]))  # a flat zero must not look like hundredths of a per cent
    _legend(axes)
    told = "Transcripts with fewer than k tokens count with all they have."
    return Drawn("curves", "What the number of tokens does", caption(result, told), figure) if cells else None


def steering(result: AuditResult) -> Drawn | None:
    """Change of the internal rate at each steering strength, beside random directions of the same norm."""
    if not result.steering:
        return None
    figure = Figure(figsize=(7.5, 2.6 * len(result.steering)))
    panels = figure.subplots(len(result.steering), 1, squeeze=False, sharex=True)[:, 0]
    degenerate = {(cell.task, cell.direction, cell.strength) for cell in result.cells if cell.degenerate}
    for axes, one in zip(panels, result.steering, strict=True):
        for effects, colour, name in ((one.random_effects, GREY, "random directions"), (one.effects, BLUE, "steering vector")):
            for number, effect in enumerate(effects):
                marker = "x" if (one.task, effect.direction, effect.strength) in degenerate else "o"
                _change(axes, effect, colour, marker, name if number == 0 else None)
        axes.axhline(0, color="black", lw=0.6)
        axes.set_title(shown(one.task), loc="left", fontsize=9)
        axes.set_ylabel("change (points)")
    _legend(panels[0])
    panels[-1].set_xlabel("strength (1 is the whole contrast after every block)")
    told = "Paired with the same items unsteered; a cross marks responses that are no longer coherent."
    return Drawn("steering", "Steering", caption(result, told), figure)


def coherence(result: AuditResult) -> Drawn | None:
    """How likely the unsteered model finds the responses of each steered cell."""
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
    return Drawn("coherence", "Coherence of the responses", caption(result, "A cross marks cells called degenerate."), figure)


def rewrites(result: AuditResult) -> Drawn | None:
    """Internal rate with the original and the rewritten prompts of the same items, as slopes; the paraphrase is the control."""
    if not result.rewrites:
        return None
    tasks = list(dict.fromkeys(one.task for one in result.rewrites))
    figure = Figure(figsize=(1.6 + 1.9 * len(tasks), 3.2))
    panels = figure.subplots(1, len(tasks), squeeze=False, sharey=True)[0]
    for axes, task in zip(panels, tasks, strict=True):
        for one in (one for one in result.rewrites if one.task == task):
            colour, style = (BLUE, "-") if one.framing == "realistic" else (GREY, "--")
            n = max(one.pairs.n, 1)
            ends = [100 * (one.pairs.both + one.pairs.only_first) / n, 100 * (one.pairs.both + one.pairs.only_second) / n]
            axes.plot([0, 1], ends, style, marker="o", color=colour, label=one.framing)
        axes.set_xticks([0, 1], ["original", "rewritten"])
        axes.set_xlim(-0.3, 1.3)
        axes.set_title(shown(task), fontsize=9)
    panels[0].set_ylabel("transcripts flagged (%)")
    panels[0].set_ylim(-3, 103)
    _legend(panels[-1])
    told = "Only items that have both; pairs and tests stand in the text."
    return Drawn("rewrites", "Realism rewrites beside neutral paraphrases", caption(result, told), figure)


def places(result: AuditResult) -> Drawn | None:
    """Share of YES explanations by fifth of the response."""
    tasks = list(dict.fromkeys(one.task for one in result.places if one.condition == BASE))
    if not tasks or not any(one.rate.estimate for one in result.places):
        return None
    figure = Figure(figsize=(7.5, 3.4))
    axes = figure.subplots()
    for number, task in enumerate(tasks):
        own = [one for one in result.places if one.task == task and one.condition == BASE and one.rate.estimate is not None]
        colour = (BLUE, ORANGE, GREEN, RED, GREY)[number % 5]
        x = [one.fifth + 0.06 * (number - len(tasks) / 2) for one in own]
        axes.plot(x, [100 * (one.rate.estimate or 0) for one in own], "o-", color=colour, label=shown(task), lw=1)
        axes.vlines(x, [100 * (one.rate.low or 0) for one in own], [100 * (one.rate.high or 0) for one in own], color=colour, alpha=0.5)
    axes.set_xticks(range(1, 6), ["first fifth", "2", "3", "4", "last fifth"])
    axes.set_ylabel("explanations that are YES (%)")
    _legend(axes)
    return Drawn("places", "Where in the response awareness appears", caption(result, "95 % intervals, clustered by transcript."), figure)


def quality(result: AuditResult) -> Drawn | None:
    """Mean reconstruction cosine of each cell's explanations, by verdict."""
    if not result.quality:
        return None
    cells = list(dict.fromkeys((one.task, one.condition) for one in result.quality))
    figure = Figure(figsize=(7.5, 0.4 * len(cells) + 1.3))
    axes = figure.subplots()
    styles = {"all": (BLUE, "o"), "YES": (RED, "D"), "UNCLEAR": (ORANGE, "s"), "NO": (GREY, "^")}
    for one in result.quality:
        row = cells.index((one.task, one.condition)) + 0.15 * (list(styles).index(one.verdict) - 1.5)
        colour, marker = styles[one.verdict]
        if one.cosine.low is not None and one.cosine.high is not None:
            axes.plot([one.cosine.low, one.cosine.high], [row, row], color=colour, lw=1)
        axes.plot([one.cosine.estimate or 0], [row], marker, color=colour, ms=4)
    for verdict, (colour, marker) in styles.items():
        if any(one.verdict == verdict for one in result.quality):
            axes.plot([], [], marker, color=colour, label=verdict, ms=4)
    axes.set_yticks(range(len(cells)), [shown(f"{task}, {condition.replace('_', ' ')}") for task, condition in cells])
    axes.invert_yaxis()
    axes.set_xlabel("cosine between vector and reconstruction, 95 % interval over transcripts")
    _legend(axes)
    told = "A verdict whose explanations reconstruct worse than the others rests on weaker readings."
    return Drawn("quality", "Reconstruction by benchmark and by verdict", caption(result, told), figure)


def instrument(result: AuditResult) -> Drawn | None:
    """Rate of YES for vectors that hold nothing, and for the raw texts."""
    if result.controls is None:
        return None
    rows = [(f"{kind} vectors", one) for kind, one in result.controls.vectors.items()]
    rows += [
        (f"{task.task}, {what}", one)
        for task in result.controls.tasks
        for what, one in (("prompts", task.prompts), ("responses", task.responses))
    ]
    figure = Figure(figsize=(7.5, 0.32 * len(rows) + 1.2))
    axes = figure.subplots()
    for row, (_, one) in enumerate(rows):
        _bar(axes, row, one, BLUE if row < len(result.controls.vectors) else ORANGE, "o", None)
    axes.set_yticks(range(len(rows)), [f"{shown(name)} (n = {one.n})" for name, one in rows])
    axes.invert_yaxis()
    axes.set_xlim(-1, 101)
    axes.set_xlabel("called YES (%), 95 % interval")
    told = "Blue: explanations of vectors, one a transcript. Orange: the grader on the raw text."
    return Drawn("instrument", "Controls of the instrument", caption(result, told), figure)


def grader(result: AuditResult) -> Drawn | None:
    """Sensitivity and specificity of the grader on labelled explanations."""
    if not result.grader_quality:
        return None
    figure = Figure(figsize=(7.5, 1.6))
    axes = figure.subplots()
    for row, one in enumerate(result.grader_quality.values()):
        _bar(axes, row, one, BLUE, "o", None)
    axes.set_yticks(range(len(result.grader_quality)), [f"{name} (n = {one.n})" for name, one in result.grader_quality.items()])
    axes.invert_yaxis()
    axes.set_xlim(-1, 101)
    axes.set_xlabel("%, 95 % interval")
    told = "On labelled explanations (test split); the shipped labels were written by this project, not by independent people."
    return Drawn("grader", "How good the grader is", caption(result, told), figure)


def training(result: AuditResult) -> Drawn | None:
    """How the pair was trained, one panel a stage."""
    if not result.training:
        return None
    figure = draw_curves(pd.DataFrame(result.training))
    told = "The pair's own training, on documents held out from it; fve_nrm is 1 for a perfect reconstruction and 0 for the mean vector."
    return Drawn("training", "Training of the pair", caption(result, told), figure)


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)


def _bar(axes: Axes, row: float, one: Estimate, colour: str, marker: str, label: str | None) -> None:
    if one.estimate is None:
        axes.text(0, row, "not measured", va="center", fontsize=7, color=GREY)
        return
    if one.low is not None and one.high is not None:
        axes.plot([100 * one.low, 100 * one.high], [row, row], color=colour, lw=2, solid_capstyle="butt")
    axes.plot([100 * one.estimate], [row], marker, color=colour, label=label)


def _change(axes: Axes, effect: StrengthEffect, colour: str, marker: str, label: str | None) -> None:
    change = effect.pairs.difference
    if change.estimate is None:
        return
    if change.low is not None and change.high is not None:
        axes.plot([effect.strength] * 2, [100 * change.low, 100 * change.high], color=colour, lw=1, alpha=0.6)
    axes.plot([effect.strength], [100 * change.estimate], marker, color=colour, label=label)


def _label(cell: Cell) -> str:
    name = cell.task if cell.condition == BASE else f"{cell.task}, {cell.condition.replace('_', ' ')}"
    return f"{shown(name)} (n = {cell.internal.scored.n})"


def shown(text: str) -> str:
    """A name as matplotlib shows it: one line, no control characters, and a dollar sign is no mathematics."""
    return "".join(character if character.isprintable() else " " for character in text)[:60].replace("$", r"\$")


def caption(result: AuditResult, told: str) -> str:
    """What a figure's numbers depend on: model, layer, pair, grader, tokens, n and unscored."""
    identity = {"model": "?", "layer": "?", "verbalizer": "?", "grader": "?", "tokens_wanted": "?"} | result.identity
    unscored = sum(cell.internal.scored.n_unscored for cell in result.cells)
    pair = f", pair {identity['nla']}" if identity.get("nla", "none") != "none" else ""
    return (
        f"{told} Model {identity['model']}, layer {identity['layer']}, verbalizer {identity['verbalizer']}{pair}, "
        f"grader {identity['grader']}, up to {identity['tokens_wanted']} tokens a transcript; "
        f"{sum(cell.n for cell in result.cells)} transcripts, {unscored} without an internal verdict."
    )
