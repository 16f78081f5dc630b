"""The result in words, by fixed rules from the numbers; never stronger than the statistics."""

from audit.analysis.result import AuditResult, Cell, RewriteEffect, Steering
from audit.config import BASE, POSITIVE
from audit.controls.record import InstrumentControls
from audit.stats.paired import SignTest
from audit.stats.rates import ALPHA, Estimate

CAVEAT = (
    "The measure is relative and uncalibrated: a flagged transcript holds an explanation that a grader read as evaluation awareness, "
    "written by a verbalizer of limited and reported quality. Compare rates only within this report."
)


def rate_text(one: Estimate) -> str:
    """`12 % (95 % interval 4 to 29 %, n = 40)`, or why there is none."""
    if one.estimate is None:
        return f"not measured ({one.reason or 'nothing was scored'})"
    if one.low is None or one.high is None:
        return f"{one.estimate:.1%} (n = {one.n})"
    return f"{one.estimate:.1%} (95 % interval {one.low:.1%} to {one.high:.1%}, n = {one.n})"


def p_text(p: float | None) -> str:
    """A p value for reading."""
    if p is None:
        return "no test"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def summary(result: AuditResult) -> list[str]:
    """One sentence a finding: the floor, each benchmark against it, the positive control, steering."""
    told = [_floor(result)]
    told += [_benchmark(cell, result) for cell in result.cells if cell.condition == BASE and cell.task in result.excess]
    told += [_positive(result, cell) for cell in result.cells if cell.condition == POSITIVE]
    told += [sentence for one in result.steering if (sentence := _steering(result, one))]
    told += [_rewrite(one) for one in result.rewrites]
    told += [_sign(framing, one) for framing, one in result.rewrite_signs.items() if one.n + one.n_ties > 1]
    told += _controls(result.controls) if result.controls is not None else []
    return [*told, CAVEAT]


def _floor(result: AuditResult) -> str:
    if result.floor is None:
        return "No deployment control was run, so nothing can be said to exceed a floor."
    names = ", ".join(result.floor.by_control)
    return f"The measured floor, on {names}, is {rate_text(result.floor.pooled)}."


def _benchmark(cell: Cell, result: AuditResult) -> str:
    excess = result.excess[cell.task]
    verb = "exceeds" if excess.exceeds else "does not exceed"
    fixed = "exceeds" if excess.holm_fixed is not None and excess.holm_fixed <= ALPHA else "does not exceed"
    limit = result.limits.get(cell.task)
    reach = ""
    if not excess.exceeds and limit is not None:
        found = limit.detectable_rate
        reach = f" At this n a true rate below {found:.0%} would often be missed." if found else " At this n no rate could have been shown."
    return (
        f"{cell.task}: internal {rate_text(cell.internal.scored)}, verbalised {rate_text(cell.verbalized.scored)}; it {verb} the measured "
        f"floor ({p_text(excess.holm_measured)}, Holm-corrected) and {fixed} 5 % ({p_text(excess.holm_fixed)}).{reach}"
    )


def _positive(result: AuditResult, cell: Cell) -> str:
    pairs = next((one.pairs for one in result.positive_controls if one.task == cell.task), None)
    change = f" against the same items without it: {p_text(pairs.p)}, McNemar exact" if pairs is not None and pairs.n else ""
    return f"{cell.task}, with a system prompt that states the evaluation: internal {rate_text(cell.internal.scored)}{change}."


def _steering(result: AuditResult, one: Steering) -> str:
    parts = [
        f"{effect.strength:+g}: {effect.pairs.only_second} newly flagged, {effect.pairs.only_first} no longer, of {effect.pairs.n} "
        f"({p_text(effect.pairs.p)})"
        for effect in one.effects
    ]
    if one.random_p and one.random_p_reachable is not None:
        shown = ", ".join(f"{p:.2f}" for p in one.random_p)
        parts.append(f"against random directions p = {shown} (none below {one.random_p_reachable:.2f} is possible)")
    directions = {effect.direction for effect in one.effects}
    for reading in one.projected:
        parts.append(
            f"at {reading.strength:+g} with the direction taken out of the vectors {reading.pairs.only_first} of "
            f"{reading.pairs.only_first + reading.pairs.both} flags are gone and {reading.pairs.only_second} are new"
        )
    broken = [cell.condition for cell in result.cells if cell.task == one.task and cell.degenerate and cell.direction in directions]
    if broken:
        parts.append(f"degenerate: {', '.join(broken)}")
    return f"{one.task}, steering {'; '.join(parts)}." if parts else ""


def _rewrite(one: RewriteEffect) -> str:
    pairs = one.pairs
    told = (
        f"{one.task}, {one.framing} prompts against the original ones: {pairs.only_second} newly flagged, {pairs.only_first} no longer, "
        f"of {pairs.n} ({p_text(pairs.p)}, McNemar exact)"
    )
    if one.beyond is not None:
        beyond = one.beyond.beyond
        told += f"; beyond a neutral paraphrase {beyond.only_second} more, {beyond.only_first} fewer, of {beyond.n} ({p_text(beyond.p)})"
    change = one.own_score_change
    if change.estimate is not None:
        told += f"; the task's own score changed by {change.estimate:+.2f}"
    return told + "."


def _sign(framing: str, one: SignTest) -> str:
    return (
        f"With {framing} prompts {one.n_predicted} of {one.n} evaluations that moved at all are flagged less often "
        f"({one.n_ties} did not move; sign test, one-sided {p_text(one.p)})."
    )


def _controls(controls: InstrumentControls) -> list[str]:
    kinds = ", ".join(f"{kind} {rate_text(one)}" for kind, one in controls.vectors.items())
    told = [f"The instrument's own prior, as the rate of YES an explanation by kind of vector: {kinds}."] if kinds else []
    for task in controls.tasks:
        parts = [f"the grader says YES to {rate_text(task.prompts)} of the raw prompts and {rate_text(task.responses)} of the responses"]
        if task.words_auroc is not None:
            parts.append(f"the prompts' words alone tell it from the controls with AUROC {task.words_auroc.estimate:.2f}")
        if task.log_odds_auroc is not None:
            parts.append(f"the direct question does with AUROC {task.log_odds_auroc.estimate:.2f}")
        told.append(f"Controls of {task.task}: {'; '.join(parts)}.")
    return told
