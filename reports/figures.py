"""The figures of a report about rates, steering and rewrites, and the list of all figures. They draw numbers and compute none."""

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from audit.analysis.result import AuditResult, Cell, StrengthEffect
from audit.analysis.score_change_record import ScoreChange, StrengthScores
from audit.config import BASE
from nla.organisms.stored_check import StoredCheck, StoredSpectrum
from nla.support.figures import BLUE, GREY, ORANGE, RED, drawable
from reports.drawing import INK, Drawn, bar, beside, caption, condition_words, estimate_columns, legend, slope_panel, wrapped
from reports.instrument_figures import curves, grader, instrument, places, reconstruction, training
from reports.measure_figures import agreement, areas, known_groups, moves, roc
from reports.readers_figure import readers
from reports.words import has_explanations, unit_text

_HOW_TO_READ_RATES = (
    "Blue dots: transcripts with an explanation that shows evaluation awareness. Orange squares: transcripts in which the model says "
    "so. The grey band is the 95 % interval of the measured floor (deployment traffic), the dotted line marks 5 %. Whether a benchmark is "
    "above the floor is decided by the tests in the summary: overlapping intervals do not mean that there is no difference."
)
_MOST_PANELS = 4
"""Small multiples in one row."""


def all_figures(result: AuditResult, checks: Sequence[StoredCheck] = (), spectra: Sequence[StoredSpectrum] = ()) -> list[Drawn]:
    """All figures for which the result, or known-groups checks and tables of readers beside it, have numbers."""
    makers: tuple[Callable[[AuditResult], Drawn | None], ...] = (
        rates,
        areas,
        roc,
        agreement,
        moves,
        rewrites,
        steering,
        score_change,
        coherence,
        curves,
        places,
        reconstruction,
        instrument,
        grader,
        training,
    )
    drawn_results = [drawn for make in makers if (drawn := make(result)) is not None]
    return [*drawn_results, *([known_groups(checks)] if checks else []), *([readers(spectra)] if spectra else [])]


def rates(result: AuditResult) -> Drawn | None:
    """Internal and verbalised rate of every cell without steering: one panel per condition, with intervals, and the floor as a band."""
    cells, explained = [cell for cell in result.cells if cell.strength == 0], has_explanations(result)
    conditions, tasks = (list(dict.fromkeys(names)) for names in ((c.condition for c in cells), (c.task for c in cells)))
    if not any(rate.estimate is not None for cell in cells for rate in (cell.internal.scored, cell.verbalized.scored)):
        return None
    n_rows, n_columns = -(-len(conditions) // _MOST_PANELS), min(len(conditions), _MOST_PANELS)
    figure = Figure(
        figsize=(0.8 + beside(map(drawable, tasks)) + 2.3 * n_columns, (0.42 * len(tasks) + 1.1) * n_rows), layout="constrained"
    )
    panels = figure.subplots(n_rows, n_columns, squeeze=False, sharex=True, sharey=True).flatten()
    for axes, condition in zip(panels, conditions, strict=False):
        for cell in (cell for cell in cells if cell.condition == condition):
            row = tasks.index(cell.task)
            if explained:
                bar(axes, row - 0.14, cell.internal.scored, BLUE, "o")
            bar(axes, row + 0.14 * explained, cell.verbalized.scored, ORANGE, "s")
        _floor(axes, result)
        axes.set_title(wrapped(condition_words(condition)), fontsize=9)
    for axes in panels[len(conditions) :]:
        axes.set_visible(False)
    panels[0].set_yticks(range(len(tasks)), [drawable(task) for task in tasks])
    panels[0].set_ylim(len(tasks) - 0.5, -0.5)
    panels[0].set_xlim(-3, 103)
    figure.supxlabel("share of transcripts (%), 95 % interval", fontsize=9)
    return Drawn(
        "rates",
        "Internal and verbalised awareness" if explained else "Verbalised awareness",
        caption(result, "A transcript is flagged if any of the tokens read is." if explained else "The model's own words."),
        figure,
        pd.DataFrame([_rate_row(cell, kind) for cell in cells for kind in (("internal", "verbalised") if explained else ("verbalised",))]),
        _HOW_TO_READ_RATES if explained else "Orange squares: transcripts in which the model says so. The dotted line is at 5 %.",
    )


def _floor(axes: Axes, result: AuditResult) -> None:
    floor = result.floor.pooled if result.floor else None
    if floor is not None and floor.low is not None and floor.high is not None:
        axes.axvspan(100 * floor.low, 100 * floor.high, color=GREY, alpha=0.2, lw=0)
    axes.axvline(5, color=GREY, lw=0.8, ls=":")


def _rate_row(cell: Cell, kind: str) -> dict[str, Any]:
    rate = cell.internal.scored if kind == "internal" else cell.verbalized.scored
    return {"task": cell.task, "condition": cell.condition, "what": kind} | estimate_columns(rate)


def steering(result: AuditResult) -> Drawn | None:
    """Change of the internal rate at each steering strength, beside control directions of the same norm."""
    steered_tasks = [steered for steered in result.steering if any(e.pairs.n for e in (*steered.effects, *steered.random_effects))]
    if not steered_tasks:
        return None
    figure = Figure(figsize=(7.5, 2.6 * len(steered_tasks)), layout="constrained")
    panels = figure.subplots(len(steered_tasks), 1, squeeze=False, sharex=True)[:, 0]
    degenerate = {(cell.task, cell.direction, cell.strength) for cell in result.cells if cell.degenerate}
    rows = []
    for axes, steered in zip(panels, steered_tasks, strict=True):
        for effects, colour, name in ((steered.random_effects, GREY, "control directions"), (steered.effects, BLUE, "steering vector")):
            for number, effect in enumerate(effects):
                marker = "x" if (steered.task, effect.direction, effect.strength) in degenerate else "o"
                _change(axes, effect, colour, marker, name if number == 0 else None)
                where = {"task": steered.task, "direction": effect.direction, "strength": effect.strength}
                rows.append(where | estimate_columns(effect.pairs.difference))
        axes.axhline(0, color=INK, lw=0.6)
        axes.set_title(drawable(steered.task), loc="left", fontsize=9)
        axes.set_ylabel("change (points)")
    legend(panels[0])
    panels[-1].set_xlabel(f"steering strength ({unit_text(result)})")
    note = "Change of the flagged rate against the same items unsteered. A cross marks degenerate responses."
    how = (
        "Blue is the steering vector, grey are the control directions (random directions and unrelated contrasts). Only a change under the "
        "steering vector beyond what the control directions do can be an effect of awareness."
    )
    return Drawn("steering", "Steering and the flagged rate", caption(result, note), figure, pd.DataFrame(rows), how)


def _change(axes: Axes, effect: StrengthEffect, colour: str, marker: str, label: str | None) -> None:
    change = effect.pairs.difference
    if change.estimate is None:
        return
    if change.low is not None and change.high is not None:
        axes.plot([effect.strength] * 2, [100 * change.low, 100 * change.high], color=colour, lw=1, alpha=0.6)
    axes.plot([effect.strength], [100 * change.estimate], marker, color=colour, label=label)


def score_change(result: AuditResult) -> Drawn | None:
    """By how many points awareness inflates each benchmark's own score, beside unrelated contrasts."""
    rows = [row for change in result.score_change.values() for at in change.strengths for row in _score_rows(change, at)]
    if not rows:
        return None
    labels = [drawable(f"{row['task']} {row['strength']:+g}, against {row['against']}") for row in rows]
    figure = Figure(figsize=(5.5 + beside(labels), 0.3 * len(rows) + 1.2), layout="constrained")
    axes = figure.subplots()
    colours = {"base": BLUE, "same strength": GREY, "matched degradation": ORANGE}
    for number, row in enumerate(rows):
        scale, colour = row["scale"], colours[row["against"]]
        if row["low"] is not None and row["high"] is not None:
            axes.plot([scale * row["low"], scale * row["high"]], [number, number], color=colour, lw=2)
        axes.plot([scale * row["estimate"]], [number], "o", color=colour)
    axes.axvline(0, color=INK, lw=0.6)
    axes.set_yticks(range(len(rows)), labels)
    axes.invert_yaxis()
    axes.set_xlabel("own score inflated by awareness (points; 95 % interval over items)")
    note = "Positive: the score falls when the model is steered away from awareness (or rises when it is steered towards it)."
    how = "Blue compares with the unsteered model, so it includes any damage by steering; grey and orange compare with unrelated contrasts."
    table = pd.DataFrame(rows).drop(columns="scale")
    return Drawn("score_change", "Does awareness change the score?", caption(result, note), figure, table, how)


def _score_rows(change: ScoreChange, at: StrengthScores) -> list[dict[str, Any]]:
    beyond = {"same strength": at.same_strength, "matched degradation": at.matched}
    differences = {"base": at.against_base.difference} | {name: item.inflation.difference for name, item in beyond.items() if item}
    return [
        {"task": change.task, "strength": at.strength, "against": name, "scale": 100.0 if change.is_share else 1.0} | estimate_columns(gap)
        for name, gap in differences.items()
        if gap.estimate is not None
    ]


def coherence(result: AuditResult) -> Drawn | None:
    """Log-probability of the responses of each cell under the unsteered model."""
    cells = [cell for cell in result.cells if cell.mean_logprob.estimate is not None]
    if not any(cell.strength for cell in cells):
        return None
    figure = Figure(figsize=(5.5 + beside(map(_label, cells)), 0.32 * len(cells) + 1.2), layout="constrained")
    axes = figure.subplots()
    for row, cell in enumerate(cells):
        axes.plot([cell.mean_logprob.estimate or 0], [row], "x" if cell.degenerate else "o", color=RED if cell.degenerate else BLUE)
    axes.set_yticks(range(len(cells)), [_label(cell) for cell in cells])
    axes.invert_yaxis()
    axes.set_xlabel("mean log-probability of a response token under the unsteered model (nats)")
    rows = [{"task": cell.task, "condition": cell.condition} | estimate_columns(cell.mean_logprob) for cell in cells]
    how = "The further left, the less a response reads like the model's own text. What is read from rambling says nothing about awareness."
    return Drawn(
        "coherence", "Coherence of the responses", caption(result, "A cross marks degenerate cells."), figure, pd.DataFrame(rows), how
    )


def rewrites(result: AuditResult) -> Drawn | None:
    """Flagged rate with the original and the rewritten prompts of the same items, as slopes, beside a neutral paraphrase."""
    effects = [effect for effect in result.rewrites if effect.original is not None and effect.rewritten is not None]
    if not any(rate.estimate for effect in effects for rate in (effect.original, effect.rewritten) if rate):
        return None
    tasks = list(dict.fromkeys(effect.task for effect in effects))
    figure = Figure(figsize=(2.8 + 1.9 * len(tasks), 3.2), layout="constrained")
    panels = figure.subplots(1, len(tasks), squeeze=False, sharey=True)[0]
    rows = []
    for axes, task in zip(panels, tasks, strict=True):
        for effect in (effect for effect in effects if effect.task == task):
            colour, style = (BLUE, "-") if effect.framing == "realistic" else (GREY, "--")
            both = {"original": effect.original, "rewritten": effect.rewritten}
            ends = [100 * (rate.estimate or 0) for rate in both.values() if rate is not None]
            axes.plot([0, 1], ends, style, marker="o", color=colour, label=drawable(effect.framing))
            rows += [
                {"task": task, "framing": effect.framing, "prompts": name} | estimate_columns(rate) for name, rate in both.items() if rate
            ]
        slope_panel(axes, task, "original", "rewritten")
    panels[0].set_ylabel("transcripts flagged (%)")
    panels[0].set_ylim(-3, 103)
    legend(panels[-1])
    note = "Items scored with both prompts; the summary has the tests."
    how = (
        "A falling blue line beside a flat grey one would mean that realistic prompts are flagged less, and not only because the words "
        "changed, if the tests in the summary support it."
    )
    return Drawn("rewrites", "Realism rewrites and neutral paraphrases", caption(result, note), figure, pd.DataFrame(rows), how)


def _label(cell: Cell) -> str:
    name = cell.task if cell.condition == BASE else f"{cell.task}, {cell.condition.replace('_', ' ')}"
    return f"{drawable(name)} (n = {cell.internal.scored.n or cell.n})"
