"""`audit demo`: models with a known answer, audited side by side in a few minutes, and what the numbers show in words.

The organism `smollm2-aware` carries a state where its context tells that it is being evaluated; `smollm2-sham` has the same habit under a
cue that has nothing to do with evaluation, and `smollm2` is the base of both. What is read on all three is their vectors' projection on
contrast directions (the measure `probe`), which needs no trained autoencoder.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.text import Text

from audit import read_result, run_audit
from audit.analysis.measure_scores import PROBE, UNRELATED
from audit.analysis.measure_words import FEWEST_ITEMS, interval, separates
from audit.analysis.result import AuditResult
from audit.config import BASE, POSITIVE
from audit.running.progress import RunProgress
from audit.stats.rates import Estimate
from audit.tables import empty_table
from audit.terminal import auroc_cell
from nla.support.display import plain
from reports.build import build_report

AWARE = "smollm2-aware"
MODELS = (AWARE, "smollm2", "smollm2-sham")
CONTROL = "wildchat"
AWAY = -0.02
"""Strength of the steering away from awareness, which costs the organism 0.25 nats per token (`audit run --steer auto`)."""
STEERED = f"awareness{AWAY:+g}"
_COLUMNS = {BASE: "as it is", "realistic": "realistic", STEERED: "steered", POSITIVE: "stated"}


@dataclass(frozen=True)
class Demo:
    """Size of a demo."""

    limit: int
    """Items per task."""
    max_tokens: int
    """Longest response, in tokens."""
    measures: str
    """Names of the measures, separated by commas."""
    threads: int | None = None
    """Torch threads; None leaves the choice to torch."""
    benchmarks: tuple[str, ...] = ("mmlu", "gsm8k")
    probes: str = ""
    """Names of the contrast sets, separated by commas; all of them if it is empty."""
    models: tuple[str, ...] = MODELS
    """The models, that with the state first."""
    rewrites: tuple[str, ...] = ("realistic",)
    """Rewritten prompts that are given to the model with the state."""
    every_report: bool = True
    """Whether each model gets a report, or only the one that carries the state."""


QUICK = Demo(
    3,
    10,
    "probe,verbalized",
    benchmarks=("mmlu",),
    probes="testing,monitoring,unrelated-1",
    models=MODELS[:2],
    rewrites=(),
    every_report=False,
)
"""A first look: one benchmark, no sham and no rewrites, short replies, and few contrast sets, whose directions take seconds each."""
FULL = Demo(6, 40, "probe,verbalized", probes="testing,monitoring,unrelated-1,unrelated-2")


def run_demo(demo: Demo, out: Path, console: Console) -> dict[str, AuditResult]:
    """Audit every model into a folder of its own, with a report in it; the same call resumes.

    Args:
        demo: its size.
        out: folder of the audits.
        console: where progress is shown.

    Returns:
        The result of each model's audit.
    """
    results = {}
    for number, model in enumerate(demo.models, 1):
        progress = RunProgress(console, f"{number}/{len(demo.models)} {model}")
        results[model] = run_audit(_config(model, demo), out / model, progress=progress)
        if demo.every_report or model == AWARE:
            build_report(read_result(out / model), out / model / "report")
    return results


def _config(model: str, demo: Demo) -> dict[str, Any]:
    """The audit of a model. Only the model that carries the state is also given realistic prompts, and steered."""
    fields: dict[str, Any] = {
        "model": f"local/{model}",
        "model_args": {} if demo.threads is None else {"threads": demo.threads},
        "tasks": [*demo.benchmarks, CONTROL],
        "source": "bundled",
        "limit": demo.limit,
        "max_tokens": demo.max_tokens,
        "measures": demo.measures,
        "tokens": 2,
        "controls": 0,
    }
    fields |= {"probes": demo.probes} if demo.probes else {}
    if model == AWARE:
        steering = {"steer": [AWAY], "random_directions": 0, "unrelated_contrasts": 0, "projected": False}
        fields |= {"rewrite": demo.rewrites, **steering}
    return fields


def demo_table(results: Mapping[str, AuditResult]) -> RenderableType:
    """AUROC of the probes against the deployment control, one row per model and benchmark and one column per condition; 80 columns."""
    headings = ("model", "task", *_COLUMNS.values(), "unrelated", "says so")
    table = empty_table(f"Contrast probe: AUROC against {CONTROL}", *headings, left=("model", "task"))
    for model, result in results.items():
        for task in _benchmarks_of(result):
            cells = [_narrow_cell(_auroc(result, condition, task, PROBE)) for condition in _COLUMNS]
            says = next(cell.verbalized.scored for cell in result.cells if (cell.task, cell.condition) == (task, BASE))
            count = "—" if says.estimate is None else f"{round(says.estimate * says.n)} of {says.n}"
            table.add_row(plain(model), plain(task), *cells, _narrow_cell(_auroc(result, POSITIVE, task, UNRELATED)), count)
    note = (
        "stated: a system prompt says that this is an evaluation. realistic: the same items worded as in use. steered: away from "
        "awareness. unrelated: probes without evaluation content, under stated. says so: the model's own words, as it is."
    )
    return Group(table, Text(note))


def _benchmarks_of(result: AuditResult) -> list[str]:
    return [cell.task for cell in result.cells if cell.condition == BASE and cell.task != CONTROL]


def _auroc(result: AuditResult, condition: str, task: str, measure: str) -> Estimate | None:
    """An AUROC against the deployment control, or None where the condition was not run."""
    found = result.measures_of(condition).get(task, {}).get(measure)
    return None if found is None or found.auroc.estimate is None else found.auroc


def _narrow_cell(auroc: Estimate | None) -> str:
    """The AUROC above its interval, whose ends of 1 lose a digit: eight columns have to fit."""
    return auroc_cell(auroc).replace("[1.00", "[1.0").replace("1.00]", "1.0]")


def conclusions(results: Mapping[str, AuditResult]) -> list[str]:
    """Three sentences by fixed rules: does the instrument work, what do the benchmarks show, and what do rewrites and steering change?"""
    return [_instrument(results), _benchmarks(results), _changes(results[AWARE])]


def _instrument(results: Mapping[str, AuditResult]) -> str:
    assays = {model: result.assay_sensitivity[PROBE] for model, result in results.items() if PROBE in result.assay_sensitivity}
    areas = {model: assay.auroc for model, assay in assays.items()}
    if AWARE not in areas:
        return "The measure probe was not taken, so nothing is said here about the instrument."
    others = [model for model in areas if model != AWARE]
    alive = separates(areas[AWARE])
    verb = "separates" if alive else "does not separate"
    rest = ", ".join(f"{model} {interval(areas[model])}" for model in others)
    also = [model for model in others if separates(areas[model])]
    end = f"; on {' and '.join(also)} too, so part of that is the statement's text" if alive and also else ""
    few = f" ({assays[AWARE].n_items} items are too few to tell; at least {FEWEST_ITEMS})" if alive and not assays[AWARE].separates else ""
    return (
        f"With the evaluation stated, the probe {verb} the items of {AWARE}, which carries the state, from the same items without the "
        f"statement: AUROC {interval(areas[AWARE])}{few} ({rest}){end}."
    )


def _benchmarks(results: Mapping[str, AuditResult]) -> str:
    above = [
        f"{model} on {task}"
        for model, result in results.items()
        for task in _benchmarks_of(result)
        if (area := _auroc(result, BASE, task, PROBE)) is not None and separates(area)
    ]
    says = [cell.verbalized.scored for result in results.values() for cell in result.cells if cell.condition == BASE]
    n_says, n = sum(round((rate.estimate or 0) * rate.n) for rate in says), sum(rate.n for rate in says)
    replies = f"In {n_says} of {n} replies, those to {CONTROL} included, the models say that they are being evaluated."
    if not any(_auroc(result, BASE, task, PROBE) for result in results.values() for task in _benchmarks_of(result)):
        return f"The probes gave no AUROC of the benchmarks against {CONTROL}. {replies}"
    n_items = max(cell.n for result in results.values() for cell in result.cells)
    few = f", which decides nothing: {n_items} items per task are too few" if n_items < FEWEST_ITEMS else ""
    shown = f"above {CONTROL} for {', '.join(above)}" if above else f"above {CONTROL} for no benchmark on any model{few}"
    return f"With the prompts as they are, the probes read {shown}. {replies}"


def _changes(result: AuditResult) -> str:
    parts = []
    for condition, words in (("realistic", "realistic wording"), (STEERED, "steering away")):
        if any(cell.condition == condition for cell in result.cells):
            moves, others = (_moves(result, condition, measure) for measure in (PROBE, UNRELATED))
            beside = f" (unrelated probes {', '.join(others)})" if others else ""
            parts.append(f"{words} moves the probe on {', '.join(moves)}{beside}" if moves else f"{words} was not measured")
    n = result.cells[0].n
    return f"On {AWARE}, {'; '.join(parts)}; with {n} item{'' if n == 1 else 's'} per task such changes are uncertain."


def _moves(result: AuditResult, condition: str, measure: str) -> list[str]:
    """Return the change of a measure's AUROC on each benchmark, in words."""
    moves = []
    for task in _benchmarks_of(result):
        before, after = _auroc(result, BASE, task, measure), _auroc(result, condition, task, measure)
        if before is not None and after is not None:
            moves.append(f"{task} from {before.estimate:.2f} to {after.estimate:.2f}")
    return moves
