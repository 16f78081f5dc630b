"""The `audit` command. Commands of higher layers (report, demo, label) join it through the entry-point group `audit.commands`."""

import shlex
from collections.abc import Iterable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from audit.config import AuditConfig
from audit.flags import with_flags
from audit.readers_command import readers_command
from audit.running.rescore_config import RescoreConfig
from nla.support.command import application, run
from nla.support.display import plain
from nla.support.errors import ConfigError
from nla.support.files import replacing

if TYPE_CHECKING:
    from audit.analysis.compare import AuditComparison

COMMAND_GROUP = "audit.commands"
"""Entry-point group of typer apps whose commands are added to `audit`."""

app = application("Does an open model know, inside, that it is being tested?")
app.command("readers")(readers_command)
Out = Annotated[Path, typer.Option(help="Folder of the audit: config, logs, tables, audit.json.")]


@app.command("run")
@with_flags(AuditConfig, leave_out=frozenset({"task_args", "project_out", "matched"}))
def run_command(
    config: Annotated[Path | None, typer.Argument(help="AUDIT.toml; or give --model and --tasks.")] = None,
    out: Out = Path("audit"),
    plan: Annotated[bool, typer.Option("--plan", help="Only show what would run, and what it could detect.")] = False,
    given: dict[str, Any] | None = None,
) -> None:
    """Run tasks x conditions, and analyse them. After an interruption the same command resumes; only missing cells are run.

    Example: audit run --model local/smollm2 --tasks mmlu,wildchat --source bundled --limit 12
    """
    from audit.config import make_audit, read_fields
    from audit.task_files import check_task

    fields = read_fields(config) if config else {}
    audit = make_audit(fields | (given or {}), str(config or "The command line"))
    for name in audit.tasks:  # before the imports that take seconds
        check_task(name)

    from audit import run_audit
    from audit.running.progress import RunProgress
    from audit.terminal import measures_table, plan_table, result_table

    console = Console()
    if plan:
        console.print(plan_table(audit, out))
        return
    progress = RunProgress(Console(stderr=True))
    result = run_audit(audit, out, say=progress.say, progress=progress)
    console.print(result_table(result), measures_table(result))
    logs = shlex.quote(str(out / "logs"))
    console.print(plain(f"{out / 'audit.json'}; logs: inspect view --log-dir {logs}"), soft_wrap=True)


@app.command()
def status(out: Out = Path("audit")) -> None:
    """Show which cells of an audit are done.

    Example: audit status --out audit
    """
    from audit.config import stored_config
    from audit.terminal import status_table

    Console().print(status_table(stored_config(out), out))


@app.command("analyze")
def analyze_command(out: Out = Path("audit")) -> None:
    """Compute `audit.json` again from the logs of an audit.

    Example: audit analyze --out audit
    """
    from audit.analysis.analyze import analyze
    from audit.terminal import measures_table, result_table

    result = analyze(out)
    Console().print(result_table(result), measures_table(result))


@app.command("controls")
def controls_command(out: Out = Path("audit")) -> None:
    """Measure the instrument controls again: what verbalizer and grader say where there is nothing to find. `audit run` does it by itself.

    Example: audit controls --out audit
    """
    from audit.analysis.analyze import analyze
    from audit.controls.measure import run_controls
    from audit.terminal import controls_table

    console = Console()
    run_controls(out, lambda step: console.print(plain(step, style="dim")))
    console.print(controls_table(analyze(out)))


@app.command("rewrite")
def rewrite_command(
    task: Annotated[str, typer.Argument(help="Name of a task in tasks/, or the path of a task file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File of the rewrites (JSON lines).")],
    rewriter: Annotated[str, typer.Option(help="The model that rewrites, e.g. anthropic/MODEL; or bundled, to check the shipped ones.")],
    judge: Annotated[str | None, typer.Option(help="The model that compares the realism of original and rewrite.")] = None,
    framing: Annotated[str, typer.Option(help="Comma-separated: realistic, paraphrase.")] = "realistic,paraphrase",
    source: Annotated[str | None, typer.Option(help="hub, bundled or a file; by default the task's default.")] = None,
    limit: Annotated[int | None, typer.Option(help="Items, at most.")] = None,
) -> None:
    """Rewrite a task's prompts to read like real use, and, for comparison, in neutral other words.

    Example: audit rewrite gsm8k -o rewrites.jsonl --rewriter anthropic/MODEL --judge anthropic/MODEL
    """
    from audit.running.rewrite import rewrite_task

    attempts, pairs = rewrite_task(task, source, framing.split(","), rewriter, judge, limit, out)
    console = Console()
    for before, after in pairs:
        console.print(plain(f"--- before\n{before}\n--- after\n{after}\n", lines=True), soft_wrap=True)
    failed = [attempt for attempt in attempts if attempt.rewrite is None]
    console.print(plain(f"{len(attempts) - len(failed)} of {len(attempts)} rewrites in {out}"), soft_wrap=True)
    for attempt in failed:
        console.print(plain(f"  without: {attempt.sample_id} {attempt.framing}: {'; '.join(attempt.why_not)}"), soft_wrap=True)


@app.command("compare")
def compare_command(
    folders: Annotated[list[Path], typer.Argument(help="Folders of two audits, or of more.")],
    by: Annotated[
        str | None,
        typer.Option(help="Show a panel per model (or layer, nla, grader, ...), not pairs. Default for three audits or more: model."),
    ] = None,
    json_out: Annotated[Path | None, typer.Option("--json", help="Also write every number to this file.")] = None,
) -> None:
    """Compare two audits item by item: models, layers, pairs, graders or dates. More audits are shown in panels.

    Example: audit compare audit other --json comparison.json
    """
    from pydantic import TypeAdapter

    from audit.analysis.compare import AuditComparison, compare
    from audit.analysis.panels import panels, panels_json
    from audit.terminal import comparison_table, panels_table

    if len(folders) < 2:
        raise ConfigError("audit compare needs the folders of at least two audits; one was given.")
    console = Console()
    if by is not None or len(folders) > 2:
        shown = panels(folders, by or "model")
        _write(panels_json(shown), json_out)
        console.print(panels_table(shown, by or "model"))
        return
    comparison = compare(*folders)
    _write(TypeAdapter(AuditComparison).dump_json(comparison, indent=1), json_out)
    console.print(comparison_table(comparison))
    _print_measures(comparison, folders, console)


def _write(content: bytes, path: Path | None) -> None:
    if path is not None:
        with replacing(path) as scratch:
            scratch.write_bytes(content)


def _print_measures(comparison: "AuditComparison", folders: Sequence[Path], console: Console) -> None:
    """Where no item has an internal verdict in both audits, as in audits without explanations: each audit's AUROCs."""
    from audit.analysis.result import RESULT_FILE, read_result
    from audit.analysis.stored import is_analyzed
    from audit.terminal import measures_table

    if not any(cell.pairs.n for cell in comparison.cells):
        console.print("No item has an internal verdict in both audits. Their other measures, each against its own deployment traffic:")
        for name, folder in zip("AB", folders, strict=True):
            if is_analyzed(folder):
                console.print(plain(f"{name}: {folder}"), soft_wrap=True)
                console.print(measures_table(read_result(folder / RESULT_FILE)))


@app.command("score")
@with_flags(RescoreConfig, leave_out=frozenset({"project_out"}))
def score_command(
    context: typer.Context,
    logs: Annotated[list[str], typer.Argument(help="Inspect logs (.eval), or folders of them.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the copies with awareness scores.")] = Path("audited"),
    shard: Annotated[str | None, typer.Option(help="I/N: score only the I-th of N shards; `audit merge` joins them.")] = None,
    engine: Annotated[
        str | None,
        typer.Option(help="Who scores the shards: ray or ray:ADDRESS (Ray listens on all interfaces), or slurm, which prints a script."),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="With --engine ray: shards that are scored at once.")] = None,
    shards: Annotated[int | None, typer.Option(min=1, help="With --engine: number of shards; for ray by default 12 per worker.")] = None,
    given: dict[str, Any] | None = None,
) -> None:
    """Add awareness to finished logs of an open model, whatever provider wrote them. The logs themselves are not changed.

    Example: audit score logs/FILE.eval -o audited --model Qwen/Qwen2.5-7B-Instruct
    """
    from audit.running.launch import Launch, launch
    from audit.running.rescore_config import make_rescore

    console, config, how = Console(), make_rescore(given or {}), Launch(shard, engine, workers, shards)
    if how.is_divided:
        _print_lines(launch(how, logs, out, config, context, lambda step: console.print(plain(step, style="dim"), soft_wrap=True)))
        return
    from audit.running.rescore import score_logs

    _print_lines(score_logs(logs, out, config, lambda step: console.print(plain(step, style="dim"))))


def _print_lines(lines: Iterable[object]) -> None:
    for line in lines:
        Console().print(plain(line), soft_wrap=True)


@app.command("merge")
def merge_command(out: Annotated[Path, typer.Argument(help="Output folder of `audit score --shard`.")]) -> None:
    """Join the shards of `audit score LOGS -o OUT --shard I/N` into the logs that one process would have written.

    Example: audit merge audited
    """
    from audit.running.merge import merge_shards

    _print_lines(merge_shards(out, lambda step: Console().print(plain(step, style="dim"))))


@app.command("calibrate")
def calibrate_command(
    logs: Annotated[list[Path], typer.Argument(help="Inspect logs of deployment controls with the measure probe, or folders of them.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file of the calibration (JSON).")],
) -> None:
    """Store how the contrast probes read deployment transcripts, so that `-T calibration=FILE` prints z-scores for a single run.

    Example: audit calibrate audit/logs/base -o calibration.json
    """
    from audit.analysis.calibrate import calibrate

    for line in calibrate(logs, out):
        Console().print(plain(line), soft_wrap=True)


@app.command("tasks")
def tasks_command() -> None:
    """List all tasks with their data: source, licence, size, and whether they are on this machine.

    Example: audit tasks
    """
    from audit.running.task_list import task_listings
    from audit.tables import tasks_table

    Console().print(tasks_table(task_listings()))


@app.command("new-task")
def new_task_command(
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits and _.")],
    folder: Annotated[Path, typer.Option(help="Folder of task files.")] = Path("tasks"),
) -> None:
    """Start a task of your own: a file that runs, and twelve placeholder items.

    Example: audit new-task colours
    """
    from audit.running.task_list import new_task

    console = Console()
    for path in new_task(name, folder):
        console.print(plain(path), soft_wrap=True)
    console.print(plain(f"try it: inspect eval {folder / name}.py --model local/smollm2 --limit 2"), soft_wrap=True)


data_app = application("Data of the tasks.")
app.add_typer(data_app, name="data")


@data_app.command("fetch")
def fetch_command(names: Annotated[list[str], typer.Argument(help="Tasks whose hub data are to be cached.")]) -> None:
    """Get hub data at their pinned revisions now; with HF_HUB_OFFLINE=1 later runs need no network.

    Example: audit data fetch mmlu gsm8k
    """
    from audit.running.task_list import fetch_data

    for name in names:
        for source, rows in fetch_data(name):
            Console().print(plain(f"{name}: {rows} rows of {source}"), soft_wrap=True)


@app.command("groups")
def groups_command(out: Out = Path("audit")) -> None:
    """Measure whether explanations separate the positive control from items without it, by word scores that need no grader.

    Items without it are the same task's, and for a benchmark also the deployment controls', which differ in more than the statement.

    Example: audit groups --out audit
    """
    from audit.analysis.stored import read_stored
    from audit.controls.known_groups import separations
    from audit.terminal import separation_line

    stored = read_stored(out)
    for separation in separations(stored.transcripts, stored.explanations):
        Console().print(plain(separation_line(separation)), soft_wrap=True)


@app.command("schema")
def schema_command() -> None:
    """Print the JSON schema of `audit.json`.

    Example: audit schema
    """
    import json

    from audit.analysis.result import schema

    print(json.dumps(schema(), indent=1))


@app.command()
def agreement(
    labels: Annotated[Path, typer.Argument(help="Labelled texts: JSONL (graders/labelled/README.md), or flat CSV or JSONL.")],
    grader: Annotated[str, typer.Option(help="The grader to measure.")] = "rules",
    split: Annotated[str, typer.Option(help="dev (for tuning), test (for figures) or all.")] = "test",
    against: Annotated[Path | None, typer.Option(help="Record of an earlier run; a drop beyond --max-drop exits 1.")] = None,
    json: Annotated[Path | None, typer.Option(help="Where to write the record.")] = None,
    min_kappa: Annotated[float | None, typer.Option(help="Exit 1 if kappa with the reference is below this.")] = None,
    min_sensitivity: Annotated[float | None, typer.Option(help="Exit 1 if sensitivity is below this.")] = None,
    min_specificity: Annotated[float | None, typer.Option(help="Exit 1 if specificity is below this.")] = None,
    max_drop: Annotated[float, typer.Option(help="Largest drop of a figure that --against lets pass.")] = 0.02,
    prevalence: Annotated[float, typer.Option(help="Share of YES for which the positive predictive value is computed.")] = 0.05,
    controls: Annotated[list[Path] | None, typer.Option(help="Log, or folder of logs, of a deployment control; may be repeated.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
) -> None:
    """Measure a grader, and annotators, on labelled texts. Exits 1 if a bound fails or a figure fell, so that it can guard a build.

    Example: audit agreement graders/labelled/explanations.jsonl --grader rules --split test
    """
    from audit.labelling.agreement_record import AgreementConfig, write_record
    from audit.labelling.agreement_report import measure
    from audit.labelling.agreement_tables import show

    bounds = (min_kappa, min_sensitivity, min_specificity)
    report = measure(AgreementConfig(labels, grader, split, against, json, *bounds, max_drop, prevalence, tuple(controls or ()), seed))
    show(report, Console())
    if json is not None:
        write_record(report, json)
    if report.failures:
        raise typer.Exit(1)


def whole_command() -> typer.Typer:
    """The `audit` command with the commands that other packages add to it by entry points."""
    whole = application(str(app.info.help))
    whole.add_typer(app)
    for entry_point in sorted(entry_points(group=COMMAND_GROUP), key=lambda entry_point: entry_point.name):
        whole.add_typer(entry_point.load())
    return whole


def main() -> None:
    """Entry point: a user's mistake is one message on stderr and exit status 2, never a traceback."""
    run(whole_command())


if __name__ == "__main__":
    main()
