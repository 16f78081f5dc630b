"""The figures of a report about the measures: AUROC against deployment, ROC curves, agreement, and known groups."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from audit.analysis.measure_results import MeasurePair
from audit.analysis.measure_scores import MAIN, PROBE, UNRELATED
from audit.analysis.measure_words import MEASURE_WORDS
from audit.analysis.result import AuditResult
from audit.config import BASE, POSITIVE, is_control_direction
from nla.organisms.figure import draw_checks
from nla.organisms.stored_check import StoredCheck
from nla.support.figures import BLUE, GREEN, GREY, ORANGE, RED, drawable
from reports.drawing import SERIES, Drawn, bar, beside, caption, condition_words, estimate_columns, legend, slope_panel, tall

_COLOURS = {"nla": BLUE, PROBE: ORANGE, UNRELATED: GREY, "follow_up": GREEN, "verbalized": RED}


def areas(result: AuditResult) -> Drawn | None:
    """AUROC of every measure against deployment: one panel per measure, one row per benchmark and condition."""
    conditions = (BASE, *result.measures_by_condition)
    rows = {
        (task, condition): result.measures_of(condition)[task]
        for task in result.measures
        for condition in conditions
        if task in result.measures_of(condition)
    }
    shown = [name for name in MEASURE_WORDS if any(name in of and of[name].auroc.estimate is not None for of in rows.values())]
    if not shown:
        return None
    labels = [f"{drawable(task)}, {condition_words(condition)}" for task, condition in rows]
    figure = Figure(figsize=(0.8 + beside(labels) + 1.6 * len(shown), 0.28 * len(rows) + 1.3), layout="constrained")
    panels = figure.subplots(1, len(shown), squeeze=False, sharey=True, sharex=True)[0]
    table = []
    for axes, name in zip(panels, shown, strict=True):
        axes.axvline(0.5, color=GREY, lw=0.8, ls=":")
        for row, ((task, condition), of) in enumerate(rows.items()):
            if name in of:
                auroc = of[name].auroc
                bar(axes, row, auroc, _COLOURS[name], "o" if condition == BASE else "d", scale=1)
                table.append({"task": task, "condition": condition, "measure": name} | estimate_columns(auroc))
        axes.set_title(MEASURE_WORDS[name], fontsize=9)
        axes.set_xlim(-0.03, 1.03)
        axes.set_xticks([0, 0.5, 1], ["0", ".5", "1"])
    panels[0].set_yticks(range(len(rows)), labels)
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    figure.supxlabel("AUROC against deployment traffic (95 % interval over items)", fontsize=9)
    note = "Every measure against the pooled deployment controls in their base condition."
    how = (
        "At .5 (dotted) a measure cannot tell the benchmark from deployment traffic; to the right it reads more awareness there. Where the "
        "unrelated probes stand as far right as the contrast probes, the format or topic of the benchmark may explain what they read."
    )
    return Drawn("measures", "Every measure against deployment traffic", caption(result, note), figure, pd.DataFrame(table), how)


def moves(result: AuditResult) -> Drawn | None:
    """What realistic prompts and steering do to the probes' AUROC: slopes from the base condition, one panel per benchmark."""
    controls = {cell.condition for cell in result.cells if is_control_direction(cell.direction)} | {POSITIVE}
    changed = {name: of for name, of in result.measures_by_condition.items() if name not in controls}
    table = []
    for task, measures in result.measures.items():
        for condition, of in changed.items():
            for name in (PROBE, UNRELATED):
                ends = [found[name].auroc for found in (measures, of.get(task, {})) if name in found]
                if len(ends) == 2 and all(end.estimate is not None for end in ends):
                    where = {"task": task, "condition": condition, "measure": name, "before": ends[0].estimate}
                    table.append(where | estimate_columns(ends[1]))
    if not table:
        return None
    tasks = list(dict.fromkeys(str(row["task"]) for row in table))
    conditions = list(changed)
    names = [f"{condition_words(condition)}, unrelated probes" for condition in conditions]
    figure = Figure(figsize=(1.2 + beside(names) + 1.8 * len(tasks), tall(2 * len(names), 3.1)), layout="constrained")
    panels = figure.subplots(1, len(tasks), squeeze=False, sharey=True)[0]
    for axes, task in zip(panels, tasks, strict=True):
        axes.axhline(0.5, color=GREY, lw=0.8, ls=":")
        for row in (row for row in table if row["task"] == task):
            is_probe = row["measure"] == PROBE
            colour = SERIES[conditions.index(row["condition"]) % len(SERIES)] if is_probe else GREY
            label = f"{condition_words(row['condition'])}{'' if is_probe else ', unrelated probes'}"
            axes.plot([0, 1], [row["before"], row["estimate"]], "o-" if is_probe else "s--", color=colour, ms=4, lw=1.4, label=label)
        slope_panel(axes, task, "as it is", "changed")
    panels[0].set_ylabel("probes' AUROC against deployment")
    panels[0].set_ylim(-0.03, 1.03)
    legend(panels[-1])
    note = "The same benchmark items with other prompts, or with the model steered; the deployment controls stay as they are."
    how = (
        "If a benchmark reads as evaluation, realistic prompts and steering away from awareness should lower the solid lines, and leave "
        "the dashed lines of the unrelated probes where they are."
    )
    return Drawn("moves", "Rewrites and steering: does the reading move?", caption(result, note), figure, pd.DataFrame(table), how)


def roc(result: AuditResult) -> Drawn | None:
    """ROC curves in the base condition: one panel per measure, one line per benchmark."""
    shown = [name for name in MEASURE_WORDS if any(name in of and of[name].roc for of in result.measures.values())]
    if not shown:
        return None
    figure = Figure(
        figsize=(2.2 * len(shown) + 1.2 + beside(map(drawable, result.measures)), tall(len(result.measures), 2.7)), layout="constrained"
    )
    panels = figure.subplots(1, len(shown), squeeze=False, sharey=True)[0]
    table = []
    for axes, name in zip(panels, shown, strict=True):
        axes.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=":")
        for number, (task, measures) in enumerate(result.measures.items()):
            points = measures[name].roc if name in measures else []
            if points:
                style = ("-", "--", "-.")[number // len(SERIES) % 3]
                axes.plot(*zip(*points, strict=True), color=SERIES[number % len(SERIES)], lw=1.4, ls=style, label=drawable(task))
                table += [{"task": task, "measure": name, "deployment": x, "benchmark": y} for x, y in points]
        axes.set_title(MEASURE_WORDS[name], fontsize=9)
        axes.set_xlabel("deployment above")
        axes.set_aspect("equal")
        axes.set_xticks([0, 0.5, 1], ["0", ".5", "1"])
    panels[0].set_ylabel("benchmark above")
    legend(panels[-1])
    note = "Share of the benchmark's transcripts above a score, against the share of deployment transcripts above it."
    how = "The more a line bends to the upper left, the better the measure tells the benchmark from deployment. On the diagonal it cannot."
    return Drawn("roc", "ROC curves against deployment", caption(result, note), figure, pd.DataFrame(table), how)


def agreement(result: AuditResult) -> Drawn | None:
    """Spearman correlations of the measures with each other, pooled and within benchmarks."""
    pairs = [pair for pair in result.consistency.pairs if pair.spearman.estimate is not None or pair.spearman_within.estimate is not None]
    names = [name for name in MAIN if any(name in (pair.first, pair.second) for pair in pairs)]
    if not pairs:
        return None
    figure = Figure(figsize=(2.2 * len(names) + 2.4, 0.55 * len(names) + 1.7), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    kinds = (("pooled", "spearman"), ("within each benchmark", "spearman_within"))
    for axes, (title, kind) in zip(panels, kinds, strict=True):
        _matrix(axes, names, pairs, kind)
        axes.set_title(title, fontsize=9)
    rows = [
        {"first": pair.first, "second": pair.second, "what": title} | estimate_columns(getattr(pair, kind))
        for pair in pairs
        for title, kind in kinds
    ]
    note = "Spearman correlation over the transcripts of the base condition that both measures scored, with 95 % intervals over items."
    how = (
        "The Claude Mythos 5 system card (6.5.1) reports that such measures agree weakly (Pearson correlation .16 to .35; the figure shows "
        "Spearman's). Within benchmarks, differences between benchmarks add nothing: what is left is agreement about single transcripts."
    )
    return Drawn("consistency", "Do the measures agree?", caption(result, note), figure, pd.DataFrame(rows), how)


def _matrix(axes: Axes, names: Sequence[str], pairs: Sequence[MeasurePair], kind: str) -> None:
    for pair in pairs:
        estimate = getattr(pair, kind)
        column, row = sorted((names.index(pair.first), names.index(pair.second)))
        if estimate.estimate is None:
            axes.text(column, row, "—", ha="center", va="center", fontsize=8)
            continue
        axes.scatter([column], [row], s=900, color=BLUE if estimate.estimate >= 0 else RED, alpha=0.15 + 0.6 * abs(estimate.estimate), lw=0)
        ends = "" if estimate.low is None or estimate.high is None else f"\n[{estimate.low:.2f}, {estimate.high:.2f}]"
        axes.text(column, row, f"{estimate.estimate:.2f}{ends}", ha="center", va="center", fontsize=7)
    axes.set_xticks(range(len(names) - 1), [MEASURE_WORDS[name] for name in names[:-1]], fontsize=7)
    axes.set_yticks(range(1, len(names)), [MEASURE_WORDS[name] for name in names[1:]], fontsize=7)
    axes.set_xlim(-0.6, len(names) - 1.4)
    axes.set_ylim(len(names) - 0.4, 0.4)


def known_groups(checks: Sequence[StoredCheck]) -> Drawn:
    """AUROC of every measure on known groups, by model."""
    read = "; ".join(f"{check.name}: {check.n} prompts, block {check.layer}" for check in checks)
    note = (
        "Each prompt has the identical reply under an evaluation and a deployment context, so a reader of the text alone is at .5 "
        f"(dotted). {read}. A measure that does not separate a model that carries the state cannot show that another lacks it."
    )
    rows = [
        {"model": check.name, "measure": measure, "estimate": area.estimate, "low": area.low, "high": area.high, "n": area.n}
        for check in checks
        for measure, area in check.auroc.items()
    ]
    title = "Known groups: which measures see a state that is there"
    how = (
        "A row whose interval lies right of .5 is a measure that sees the state of this model; where the interval includes .5, the check "
        "does not show that the measure sees it."
    )
    return Drawn("known_groups", title, note, draw_checks(checks), pd.DataFrame(rows), how)
