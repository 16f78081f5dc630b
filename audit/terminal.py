"""Tables for the terminal: what an audit would run, which cells are done, and its results. Every table fits into 80 columns.

Names come from users, models and data sets, so every cell and title is shown through `nla.support.display.plain`: nothing in them is read
as markup or reaches the terminal as a control sequence. Lines below a table (`Group`) hold what would make it too wide.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from audit.analysis.compare import NO_DIFFERENCE, AuditComparison
from audit.analysis.measure_results import Reading
from audit.analysis.measure_scores import MAIN, NO_DEPLOYMENT, PROBE
from audit.analysis.measure_words import SHORT_WORDS, percent
from audit.analysis.panels import Panel, differences
from audit.analysis.result import AuditResult, Cell
from audit.cells import cell_names, cell_states
from audit.config import AUTO, BASE, AuditConfig, is_control_direction
from audit.controls.known_groups import Separation
from audit.controls.record import InstrumentControls
from audit.stats.auroc import Auroc
from audit.stats.power import limits, paired_detectable, transcripts_needed
from audit.stats.rates import ALPHA, Estimate
from audit.tables import empty_table
from graders import is_free
from nla.support.display import plain

GRADER_TOKENS = 1_400
"""Approximate tokens of one request to a grader that is a language model: mostly the rubric, then an explanation and the reply."""
_DISCORDANT = 0.3
"""Share of discordant pairs assumed for the paired change that a plan can detect."""


_NAMES = {"nla": "pair", "tokens_wanted": "tokens wanted", "steer_unit": "steering unit"}


def plan_table(config: AuditConfig, out: Path | None = None) -> RenderableType:
    """Generations and explanations of each condition, what is left to do, and what this number of items can detect."""
    title = f"{config.model}: {_count(len(config.tasks), 'task')} x {_count(len(config.conditions()), 'condition')}"
    table = empty_table(title, "condition", "tasks", "generations", "explanations", left=("condition",))
    generations, explanations = 0, 0
    for condition in config.conditions():
        n_tasks = len(cell_names(config, condition))
        reads_twice = config.projected and condition.steer and not is_control_direction(condition.direction)
        per_generation = config.tokens * (2 if reads_twice else 1) * condition.measured
        n = (config.limit or 0) * config.epochs * n_tasks
        generations, explanations = generations + n, explanations + n * per_generation
        counts = (str(n), str(n * per_generation)) if config.limit else ("all items", f"{per_generation} each")
        table.add_row(plain(condition.name), str(n_tasks), *counts)
    if AUTO in config.steer:
        table.caption = "auto: a sweep over a few items chooses the strength before the steered conditions run"
    if not config.limit:
        return Group(table, Text("Explanations are upper limits, because a short response has fewer tokens than are asked for."))
    table.add_row("all", "", str(generations), str(explanations), style="bold")
    lines = [*_cost(config, explanations, out), *_reach(config.limit), *_random_note(config)]
    return Group(table, *(Text(line) for line in lines))


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def _cost(config: AuditConfig, explanations: int, out: Path | None) -> list[str]:
    """How long the remaining cells take, judging by those that are done, and the tokens of a grader that is a language model."""
    states = cell_states(out).values() if out else []
    seconds = [state.seconds / state.n_samples for state in states if state.seconds is not None and state.n_samples]
    n_cells = sum(len(cell_names(config, condition)) for condition in config.conditions())
    lines = [f"{_count(n_cells, 'cell')} to run; the time is estimated once one of them is done."]
    if seconds:
        each = median(seconds)
        minutes = max(n_cells - len(seconds), 0) * each * (config.limit or 0) * config.epochs / 60
        lines = [
            f"{len(seconds)} of {n_cells} cells are done, at a median of {each:.1f} s per sample; the rest takes about {minutes:.0f} min."
        ]
    if not is_free(config.grader):
        lines.append(f"The grader, a language model, reads about {explanations * GRADER_TOKENS / 1e6:.1f} million tokens.")
    return lines


def _reach(n: int) -> list[str]:
    fixed, needed, change = limits(0.05, n), transcripts_needed(0.05, 0.15), paired_detectable(n, _DISCORDANT)
    pairs = f"at 80 % power with {_DISCORDANT:.0%} discordant pairs"
    rate = "No rate" if fixed.detectable_rate is None else f"A true rate of {fixed.detectable_rate:.0%}"
    return [
        f"With {_count(n, 'item')} per task:",
        f"- If none is flagged, the 95 % interval reaches up to {fixed.none_flagged_high:.1%}.",
        f"- At least {fixed.fewest_flagged} flagged are significantly above a floor of 5 %.",
        f"- {rate} is detectable above that floor at 80 % power (15 % would need {needed} items).",
        f"- No paired change is detectable {pairs}." if change is None else f"- A paired change of {change:.0%} is detectable {pairs}.",
    ]


def _random_note(config: AuditConfig) -> list[str]:
    if not config.steer:
        return []
    n_controls = config.random_directions + (config.unrelated_contrasts if config.measure_unrelated else 0)
    least = 1 / (1 + n_controls)
    needed = "" if least <= ALPHA else f"; {ALPHA} needs {round(1 / ALPHA) - 1} directions"
    noun = "control direction" if config.measure_unrelated else "random direction"
    return [f"With {_count(n_controls, noun)}, the smallest possible p value is {least:.2f}{needed}."]


def status_table(config: AuditConfig, out: Path) -> Table:
    """Status and number of finished samples of every cell."""
    states = cell_states(out)
    table = empty_table("", "condition", "task", "status", "samples", left=("condition", "task", "status"))
    for condition in config.conditions():
        for task in cell_names(config, condition):
            state = states.get((condition.name, task))
            status, n_samples = (state.status, state.n_samples) if state else ("not started", 0)
            table.add_row(plain(condition.name), plain(task), plain(status), str(n_samples))
    return table


def result_table(result: AuditResult) -> RenderableType:
    """One row per cell: internal rate, share of tokens and verbalised rate, unscored transcripts, and whether the floor is exceeded."""
    headings = ("task", "n", "internal", "tokens", "verbalised", "unscored", "floor")
    table = empty_table("Evaluation awareness", *headings, left=("task", "floor"))
    for condition in dict.fromkeys(cell.condition for cell in result.cells):
        table.add_row(plain(condition, "bold"))
        for cell in (cell for cell in result.cells if cell.condition == condition):
            table.add_row(
                plain(f" {cell.task}"),
                str(cell.internal.scored.n),
                percent(cell.internal.scored),
                "" if cell.token_rate.estimate is None else f"{cell.token_rate.estimate:.1%}",
                percent(cell.verbalized.scored),
                str(cell.internal.scored.n_unscored),
                _floor_word(cell, result),
            )
    return Group(table, *_score_tables(result), *(plain(line) for line in _footers(result)))


def _score_tables(result: AuditResult) -> list[RenderableType]:
    """What steering does to each benchmark's own score; empty without steering."""
    changes = [change for change in result.score_change.values() if change.strengths]
    if not changes:
        return []
    headings = ("steering", "n", "loss", "vs base", "vs same strength", "vs matched")
    table = empty_table("Change of the own score (points)", *headings, left=("steering",))
    for change in changes:
        table.add_row(plain(change.task, "bold"))
        for at in change.strengths:
            beyond = [_points(item.inflation.difference, change.is_share) if item else "not run" for item in (at.same_strength, at.matched)]
            n, loss = at.against_base.difference.n, "—" if at.loss.estimate is None else f"{at.loss.estimate:.2f}"
            table.add_row(f" {at.strength:+g}", str(n), loss, _points(at.against_base.difference, change.is_share), *beyond)
    note = (
        "Positive if the score is lower when steered away from awareness, with 95 % intervals over items. Against base this includes any "
        "damage by steering; loss: nats per token against base; same strength, matched: against unrelated contrasts of the same strength, "
        "and of the strength that degrades as much."
    )
    return [table, Text(note), *(plain(f"{change.task}: {change.sentence}") for change in changes)]


def _floor_word(cell: Cell, result: AuditResult) -> str:
    if cell.degenerate:
        return "degenerate"
    excess = result.excess.get(cell.task) if cell.condition == BASE else None
    if excess is None:
        return ""
    return "no test" if excess.holm_measured is None else "above" if excess.exceeds else "not shown"


def _footers(result: AuditResult) -> list[str]:
    lines = [
        "Rates with 95 % intervals. internal: transcripts with any flagged token; tokens: mean share of a transcript's tokens that are "
        "flagged."
    ]
    lines += [
        f"{cell.task}{'' if cell.condition == BASE else f' ({cell.condition})'}: {text}."
        for cell in result.cells
        if (text := against_floor(cell, result))
    ]
    identity = ", ".join(f"{_NAMES.get(name, name)} {value}" for name, value in result.identity.items())
    return [*lines, *([f"{identity}."] if identity else []), *result.notes]


def measures_table(result: AuditResult) -> RenderableType:
    """AUROC of each measure against deployment traffic, one row per benchmark in the base condition, and the conclusions in words."""
    if not result.measures:
        return Text("The measures were not compared.")
    table = empty_table("AUROC against deployment traffic", "task", *SHORT_WORDS.values(), left=("task",))
    for task, measures in result.measures.items():
        table.add_row(plain(task), *(auroc_cell(measures[name].auroc if name in measures else None) for name in SHORT_WORDS))
    return Group(table, *(plain(line) for line in measure_lines(result)))


def panels_table(panels: Sequence[Panel], by: str) -> RenderableType:
    """For each panel of audits, each audit's AUROCs and conclusions, and what else distinguishes how it was measured."""
    parts: list[RenderableType] = []
    others = differences(panels, by)
    for panel in panels:
        parts += ["", plain(f"{by.replace('_', ' ')}: {panel.value}", style="bold")]
        for folder, result in panel.audits:
            parts += [plain(f"{folder}{f' ({others[folder]})' if others[folder] else ''}"), measures_table(result)]
    return Group(*parts)


def auroc_cell(auroc: Estimate | None) -> str:
    """An AUROC above its interval, which leaves room for all columns."""
    if auroc is None or auroc.estimate is None:
        return "—"
    below = "" if auroc.low is None or auroc.high is None else "\n" + f"[{auroc.low:.2f},{auroc.high:.2f}]".replace("0.", ".")
    return f"{auroc.estimate:.2f}{below}"


_READINGS: dict[Reading, str] = {
    "above": "above deployment traffic by",
    "format": "above deployment traffic, but so are unrelated probes, by",
    "at the floor": "not above deployment traffic by",
    "undecided": "cannot be decided by",
    "uninformative": "nothing can be concluded from",
    "not measured": "not measured by",
}


def measure_lines(result: AuditResult, names: Mapping[str, str] = SHORT_WORDS) -> list[str]:
    """What the comparison of the measures shows: one sentence per measure, and one line per benchmark.

    Args:
        result: the audit.
        names: the measures' names for readers.
    """
    lines = [
        f"The measure {names[name]} {'; it '.join(assay.sentences)}." for name, assay in result.assay_sensitivity.items() if name in MAIN
    ]
    for task, measures in result.measures.items():
        by_reading: dict[Reading, list[str]] = {}
        for name in MAIN:
            if name in measures:
                by_reading.setdefault(measures[name].reading, []).append(names[name])
        readings = [f"{_READINGS[reading]} {', '.join(of_reading)}" for reading, of_reading in by_reading.items()]
        lines.append(f"{task}: {'; '.join(readings)}.")
        if PROBE in measures and measures[PROBE].beyond_unrelated is not None:
            lines.append(f"{task}: the measure {names[PROBE]} {measures[PROBE].sentence}.")
    reasons = {measures[name].auroc.reason for measures in result.measures.values() for name in MAIN if name in measures}
    return [*lines, *(f"No AUROC: {reason}." for reason in sorted(reasons & {NO_DEPLOYMENT}))]


def controls_table(result: AuditResult) -> RenderableType:
    """What verbalizer and grader report where there is nothing to find: one row per vector type, and four rows per task."""
    if result.controls is None:
        return Text("The instrument controls were not run.")
    vectors = empty_table("Instrument controls: vectors", "vectors", "n", "YES", "failed", left=("vectors",))
    for kind, estimate in result.controls.vectors.items():
        vectors.add_row(plain(kind), str(estimate.n), percent(estimate), str(result.controls.failed.get(kind, 0)))
    notes = [
        "Vectors: YES rate by vector type, one explanation per transcript.",
        "Prompts, responses: share of the raw texts that the grader labels YES.",
        "Words, question: AUROC against the deployment controls, from the words of the prompts and from the log-odds (mean, in nats) of "
        "the answer to the follow-up question that means evaluation.",
    ]
    return Group(vectors, _task_controls(result.controls), *(Text(note) for note in notes))


def _task_controls(controls: InstrumentControls) -> Table:
    table = empty_table("Instrument controls: tasks", "task", "what", "n", "YES", "log-odds", "AUROC", left=("task", "what"))
    for task in controls.tasks:
        table.add_row(plain(task.task), "prompts", str(task.prompts.n), percent(task.prompts), "", "")
        table.add_row("", "responses", str(task.responses.n), percent(task.responses), "", "")
        if task.words_auroc is not None:
            table.add_row("", "words", str(task.words_auroc.n), "", "", auroc_text(task.words_auroc))
        if task.log_odds.estimate is not None:
            table.add_row("", "question", str(task.log_odds.n), "", f"{task.log_odds.estimate:+.2f}", auroc_text(task.log_odds_auroc))
    return table


def auroc_text(auroc: Auroc | None) -> str:
    """`0.71 [0.60, 0.82]`; empty without an AUROC."""
    return "" if auroc is None else f"{auroc.estimate:.2f} [{auroc.low:.2f}, {auroc.high:.2f}]"


def against_floor(cell: Cell, result: AuditResult) -> str:
    """Whether a cell of the base condition exceeds the measured floor, or why a steered cell does not count; empty for other cells."""
    if cell.degenerate:
        return f"degenerate: {cell.degenerate}"
    excess = result.excess.get(cell.task) if cell.condition == BASE else None
    if excess is None:
        return ""
    if excess.holm_measured is None:
        return "not compared with the measured floor, because nothing was scored"
    verb = "is significantly" if excess.exceeds else "is not significantly"
    return f"{verb} above the measured floor{holm_words(excess.holm_measured)}"


def holm_words(p: float | None) -> str:
    """A Holm-corrected p value in brackets, with a space before it; empty without one."""
    return "" if p is None else " (Holm p < 0.001)" if p < 0.001 else f" (Holm p {p:.3f})"


def comparison_table(comparison: AuditComparison) -> RenderableType:
    """Two audits, one row per cell."""
    headings = ("task", "pairs", "A", "B", "change", "p", "detectable", "unpaired")
    table = empty_table("A against B, paired by item", *headings, left=("task",))
    for condition in dict.fromkeys(cell.condition for cell in comparison.cells):
        table.add_row(plain(condition, "bold"))
        for cell in (cell for cell in comparison.cells if cell.condition == condition):
            table.add_row(
                plain(f" {cell.task}"),
                str(cell.pairs.n),
                _share(cell.a.estimate),
                _share(cell.b.estimate),
                _points(cell.pairs.difference),
                "—" if cell.p_holm is None else "<.001" if cell.p_holm < 0.001 else f"{cell.p_holm:.3f}",
                "none" if cell.detectable is None else _share(cell.detectable),
                f"{cell.only_a} | {cell.only_b}",
            )
    differences = [f"{name}: A {a}, B {b}" for name, (a, b) in comparison.differs.items()]
    lines = [
        *(differences or [NO_DIFFERENCE]),
        "Change: B minus A in percentage points with 95 % interval; p: exact McNemar test, Holm-corrected over all cells; detectable: "
        "the smallest change detected at 80 % power; unpaired: transcripts of A and of B without a partner.",
    ]
    return Group(table, *(plain(line) for line in lines))


def _share(share: float | None) -> str:
    return "—" if share is None else f"{share:.0%}"


def _points(change: Estimate, is_share: bool = True) -> str:
    if change.estimate is None:
        return "—"
    scale, digits = (100, 0) if is_share else (1, 1)
    ends = "" if change.low is None or change.high is None else f" [{scale * change.low:+.{digits}f}, {scale * change.high:+.{digits}f}]"
    return f"{scale * change.estimate:+.{digits}f}{ends}"


def separation_line(separation: Separation) -> str:
    """How well one word score separates two groups, as a sentence."""
    other = "itself" if separation.against == separation.task else separation.against
    return (
        f"{separation.task} against {other}: AUROC {separation.auroc:.2f} [{separation.low:.2f}, {separation.high:.2f}] of the share of "
        f"explanations with {separation.score}: {separation.mean_stated:.1%} in {separation.n_stated} transcripts with the statement, "
        f"{separation.mean_base:.1%} in {separation.n_base} without it"
    )
