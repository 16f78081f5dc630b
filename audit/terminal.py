"""Tables for the terminal: what an audit would run, what of it is done, and what it found."""

from pathlib import Path

from rich import box
from rich.table import Table

from audit.analysis.compare import Comparison
from audit.analysis.result import AuditResult, Cell
from audit.config import AuditConfig
from audit.running.run import cells_done, has_rewrites, seconds_done
from audit.stats.power import limits, paired_detectable, transcripts_needed
from audit.stats.rates import ALPHA, Estimate
from graders import is_free

GRADER_TOKENS = 1_400
"""Tokens of the rubric, an explanation and a reply, about; the rubric is most of it."""


def plan_table(config: AuditConfig, out: Path | None = None) -> Table:
    """Generations and explanations of each condition, what is left to do, and what this number of items could detect."""
    table = Table(title=f"{config.model}: {len(config.tasks)} tasks x {len(config.conditions())} conditions", box=box.SIMPLE_HEAD)
    for heading in ("condition", "tasks", "generations", "explanations (at most)"):
        table.add_column(heading, justify="left" if heading == "condition" else "right")
    generations, explanations = 0, 0
    for condition in config.conditions():
        tasks = [name for name in config.tasks if condition.framing is None or has_rewrites(name, config)]
        n = (config.limit or 0) * config.epochs * len(tasks)
        twice = config.projected and bool(condition.steer) and not condition.direction.startswith("random-")
        read = n * config.tokens * (1 + twice)
        generations, explanations = generations + n, explanations + read
        told = (str(n), str(read)) if config.limit else ("all items", f"x {config.tokens * (1 + twice)}")
        table.add_row(condition.name, str(len(tasks)), *told)
    if config.limit:
        table.add_row("all", "", str(generations), str(explanations), style="bold")
        table.caption = " ".join(filter(None, [_cost(config, explanations, out), _reach(config, config.limit), _random_note(config)]))
    return table


def _cost(config: AuditConfig, explanations: int, out: Path | None) -> str:
    """Time from the cells that are done, and tokens of a grader that is a model."""
    seconds = [took / n for took, n in seconds_done(out) if n] if out else []
    cells = sum(1 for c in config.conditions() for t in config.tasks if c.framing is None or has_rewrites(t, config))
    done = len(seconds)
    if seconds:
        each = sorted(seconds)[done // 2]
        left = max(cells - done, 0) * each * (config.limit or 0) * config.epochs
        told = f"{done} of {cells} cells are done; at their median of {each:.1f} s a sample the others take about {left / 60:.0f} min."
    else:
        told = f"{cells} cells; how long they take is told once one of them is done."
    tokens = (
        "" if is_free(config.grader) else f" A grader that is a model reads about {explanations * GRADER_TOKENS / 1e6:.1f} million tokens."
    )
    return told + tokens


def _reach(config: AuditConfig, n: int) -> str:
    against_five = limits(0.05, n)
    needed = transcripts_needed(0.05, 0.15)
    return (
        f"{n} items a task: 0 flagged leaves up to {against_five.none_flagged_high:.1%} (95 %); above a floor of 5 % needs "
        f"{against_five.fewest_flagged} flagged, and a true rate of {_share(against_five.detectable_rate)} is found with 80 % power "
        f"(a true rate of 15 % would need {needed} items); a paired change (30 % discordant) of {_share(paired_detectable(n, 0.3))} is."
    )


def _random_note(config: AuditConfig) -> str:
    if not config.steer:
        return ""
    least = 1 / (1 + config.random_directions)
    needed = "" if least <= ALPHA else f" ({round(1 / ALPHA) - 1} are needed for {ALPHA})"
    return f"{config.random_directions} random directions: no p value below {least:.2f}{needed}."


def _share(share: float | None) -> str:
    return "no size" if share is None else f"{share:.0%}"


def status_table(config: AuditConfig, out: Path) -> Table:
    """A row a cell: its status and finished samples."""
    done = cells_done(out)
    table = Table("condition", "task", "status", "samples", box=box.SIMPLE_HEAD)
    for condition in config.conditions():
        for task in config.tasks:
            status, samples = done.get((condition.name, Path(task).stem), ("not started", 0))
            table.add_row(condition.name, Path(task).stem, status, str(samples))
    return table


def result_table(result: AuditResult) -> Table:
    """A row a cell: internal and verbalised rate with intervals, and whether it exceeds the measured floor."""
    identity = ", ".join(f"{name} {value}" for name, value in result.identity.items())
    table = Table(title="Evaluation awareness", box=box.SIMPLE_HEAD, caption=" ".join([identity + ".", *result.notes]))
    for heading in ("condition", "task", "n", "internal", "verbalised", "unscored", "k", "against the floor"):
        table.add_column(heading, justify="left" if heading in ("condition", "task", "against the floor") else "right")
    for cell in result.cells:
        internal = cell.internal.scored
        table.add_row(
            cell.condition,
            cell.task,
            str(internal.n),
            percent(internal),
            percent(cell.verbalized.scored),
            str(internal.n_unscored),
            "" if cell.mean_k is None else f"{cell.mean_k:.1f}",
            against_floor(cell, result).replace(" the measured floor", ""),
        )
    return table


def controls_table(result: AuditResult) -> Table:
    """A row a task and a row a kind of vector: what the instrument says where there is nothing to find."""
    table = Table(title="Controls of the instrument", box=box.SIMPLE_HEAD)
    for heading in ("control", "n", "YES", "what it is"):
        table.add_column(heading, justify="right" if heading in ("n", "YES") else "left")
    if result.controls is None:
        return table
    for kind, one in result.controls.vectors.items():
        table.add_row(f"{kind} vectors", str(one.n), percent(one), "explanations, one a transcript")
    for task in result.controls.tasks:
        table.add_row(f"{task.task}, prompts", str(task.prompts.n), percent(task.prompts), "the grader on the raw text")
        table.add_row(f"{task.task}, responses", str(task.responses.n), percent(task.responses), "the grader on the raw text")
        if task.words_auroc is not None:
            found = task.words_auroc
            table.add_row(f"{task.task}, words", str(found.n), "", f"AUROC {found.estimate:.2f} [{found.low:.2f}, {found.high:.2f}]")
        if task.log_odds.estimate is not None:
            told = f"mean log-odds {task.log_odds.estimate:+.2f}"
            if task.log_odds_auroc is not None:
                found = task.log_odds_auroc
                told += f", AUROC {found.estimate:.2f} [{found.low:.2f}, {found.high:.2f}]"
            table.add_row(f"{task.task}, direct question", str(task.log_odds.n), "", told)
    return table


def percent(estimate: Estimate) -> str:
    """`12 % [4, 29]`, or a dash where nothing was scored."""
    if estimate.estimate is None:
        return "—"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.estimate:.0%}"
    return f"{estimate.estimate:.0%} [{estimate.low * 100:.0f}, {estimate.high * 100:.0f}]"


def against_floor(cell: Cell, result: AuditResult) -> str:
    """What the floor's tests say of a cell of the base condition; why a steered cell does not count."""
    if cell.degenerate:
        return f"degenerate: {cell.degenerate}"
    excess = result.excess.get(cell.task) if cell.condition == "base" else None
    if excess is None:
        return ""
    p = excess.holm_measured
    told = "exceeds" if excess.exceeds else "does not exceed"
    return f"{told} the measured floor" + (f" (Holm p {p:.3f})" if p is not None else "")


def comparison_table(found: Comparison) -> Table:
    """The comparison for the terminal."""
    told = "; ".join(f"{name}: {a} | {b}" for name, (a, b) in found.differs.items()) or "the two do not differ in how they were measured"
    table = Table(title="A against B, paired by item", box=box.SIMPLE_HEAD, caption=told)
    for heading in ("task", "condition", "pairs", "A", "B", "change, points", "p (Holm)", "detectable", "without partner"):
        table.add_column(heading, justify="left" if heading in ("task", "condition") else "right")
    for cell in found.cells:
        change = cell.pairs.difference
        shown = "—" if change.estimate is None else f"{100 * change.estimate:+.0f}"
        if change.low is not None and change.high is not None:
            shown += f" [{100 * change.low:+.0f}, {100 * change.high:+.0f}]"
        table.add_row(
            cell.task,
            cell.condition,
            str(cell.pairs.n),
            percent(cell.a),
            percent(cell.b),
            shown,
            "—" if cell.p_holm is None else f"{cell.p_holm:.3f}",
            "—" if cell.detectable is None else f"{cell.detectable:.0%}",
            f"{cell.only_a} | {cell.only_b}",
        )
    return table
