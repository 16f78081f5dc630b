"""The figures of a report about the instrument: tokens, places, reconstruction, controls, grader and training of the pair."""

import pandas as pd
from matplotlib.figure import Figure

from audit.analysis.result import AuditResult
from audit.config import BASE
from nla.support.figures import BLUE, GREEN, GREY, ORANGE, RED, drawable
from nla.training.curves import draw_curves
from reports.drawing import INK, SERIES, Drawn, bar, beside, caption, condition_words, estimate_columns, legend, tall


def curves(result: AuditResult) -> Drawn | None:
    """Flagged rate against the number of tokens read: the exact expectation over all subsets of tokens."""
    cells = [cell for cell in result.cells if cell.condition == BASE and cell.curve]
    if not any(point.rate.estimate for cell in cells for point in cell.curve):
        return None  # a flat zero: the tables say it
    figure = Figure(figsize=(6.5 + beside(drawable(cell.task) for cell in cells), tall(len(cells), 3.6)), layout="constrained")
    axes = figure.subplots()
    colours = (*SERIES, INK)
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
    legend(axes)
    note = "All tokens are used of a transcript that has fewer."
    rows = [{"task": cell.task, "tokens": point.k} | estimate_columns(point.rate) for cell in cells for point in cell.curve]
    how = (
        "If a line still rises at its right end, more tokens per transcript would flag more; if it is flat, reading more tokens is "
        "unlikely to flag more."
    )
    return Drawn("curves", "Flagged rate by number of tokens read", caption(result, note), figure, pd.DataFrame(rows), how)


def places(result: AuditResult) -> Drawn | None:
    """Share of YES explanations by fifth of the response, in the base condition."""
    base = [place for place in result.places if place.condition == BASE and place.rate.estimate is not None]
    tasks = list(dict.fromkeys(place.task for place in base))
    if not any(place.rate.estimate for place in base):
        return None
    figure = Figure(figsize=(6.5 + beside(map(drawable, tasks)), tall(len(tasks), 3.4)), layout="constrained")
    axes = figure.subplots()
    for number, task in enumerate(tasks):
        rates = [place.rate for place in base if place.task == task]
        colour = (BLUE, ORANGE, GREEN, RED, GREY)[number % 5]
        x = [place.fifth + 0.06 * (number - len(tasks) / 2) for place in base if place.task == task]
        axes.plot(x, [100 * (rate.estimate or 0) for rate in rates], "o-", color=colour, label=drawable(task), lw=1)
        axes.vlines(x, [100 * (rate.low or 0) for rate in rates], [100 * (rate.high or 0) for rate in rates], color=colour, alpha=0.5)
    axes.set_xticks(range(1, 6), ["first fifth", "2", "3", "4", "last fifth"])
    axes.set_ylabel("explanations that are YES (%)")
    legend(axes)
    rows = [{"task": place.task, "fifth": place.fifth} | estimate_columns(place.rate) for place in base]
    how = "Where in the reply the explanations show awareness. A rate that is high only at the start may be an echo of the prompt."
    note = "95 % intervals, clustered by transcript."
    return Drawn("places", "Where in the reply", caption(result, note), figure, pd.DataFrame(rows), how)


def reconstruction(result: AuditResult) -> Drawn | None:
    """Mean reconstruction cosine of each cell's explanations, by verdict."""
    if not result.quality:
        return None
    cells = list(dict.fromkeys((row.task, row.condition) for row in result.quality))
    names = [drawable(f"{task}, {condition_words(condition)}") for task, condition in cells]
    figure = Figure(figsize=(5.5 + beside(names), 0.4 * len(cells) + 1.3), layout="constrained")
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
    axes.set_yticks(range(len(cells)), names)
    axes.invert_yaxis()
    axes.set_xlabel("cosine between vector and reconstruction, 95 % interval over transcripts")
    legend(axes)
    note = "Verdicts on explanations that reconstruct their vectors badly are weaker evidence."
    rows = [{"task": row.task, "condition": row.condition, "verdict": row.verdict} | estimate_columns(row.cosine) for row in result.quality]
    how = "How much of a vector its explanation carries. Where the YES explanations reconstruct worse than the others, doubt them."
    title = "Reconstruction by benchmark and verdict"
    return Drawn("quality", title, caption(result, note), figure, pd.DataFrame(rows), how)


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
    names = [f"{drawable(name)} (n = {rate.n})" for name, rate in rows]
    figure = Figure(figsize=(5.5 + beside(names), 0.32 * len(rows) + 1.2), layout="constrained")
    axes = figure.subplots()
    for row, (_, rate) in enumerate(rows):
        bar(axes, row, rate, BLUE if row < len(result.controls.vectors) else ORANGE, "o")
    axes.set_yticks(range(len(rows)), names)
    axes.invert_yaxis()
    axes.set_xlim(-1, 101)
    axes.set_xlabel("labelled YES (%), 95 % interval")
    note = "Blue: YES rate by vector type, one explanation per transcript. Orange: share of the raw texts that the grader labels YES."
    table = pd.DataFrame([{"what": name} | estimate_columns(rate) for name, rate in rows])
    how = (
        "Shuffled and random vectors carry no content, and the mean vector that of no single transcript, so a YES on these counts as a "
        "false positive. The real vectors stand beside them for comparison."
    )
    return Drawn("instrument", "Instrument controls", caption(result, note), figure, table, how)


def grader(result: AuditResult) -> Drawn | None:
    """Sensitivity and specificity of the grader on labelled explanations."""
    if not result.grader_quality:
        return None
    figure = Figure(figsize=(7.5, 1.6), layout="constrained")
    axes = figure.subplots()
    for row, rate in enumerate(result.grader_quality.values()):
        bar(axes, row, rate, BLUE, "o")
    axes.set_yticks(range(len(result.grader_quality)), [f"{drawable(name)} (n = {rate.n})" for name, rate in result.grader_quality.items()])
    axes.invert_yaxis()
    axes.set_xlim(-1, 101)
    axes.set_xlabel("%, 95 % interval")
    note = "On labelled explanations (test split); the shipped labels were written by this project, not by independent people."
    table = pd.DataFrame([{"what": name} | estimate_columns(rate) for name, rate in result.grader_quality.items()])
    how = "Sensitivity: how many aware explanations the grader finds. Specificity: how many others it leaves alone."
    return Drawn("grader", "Sensitivity and specificity of the grader", caption(result, note), figure, table, how)


def training(result: AuditResult) -> Drawn | None:
    """Training curves of the pair, one panel per stage."""
    if not result.training:
        return None
    figure = draw_curves(result.training)
    note = "Measured on documents held out from training; fve_nrm is 1 for a perfect reconstruction and 0 for the mean vector."
    how = "Rising curves that have not levelled off suggest that longer training would have helped."
    table = pd.DataFrame([vars(point) for point in result.training])
    return Drawn("training", "Training of the pair", caption(result, note), figure, table, how)
