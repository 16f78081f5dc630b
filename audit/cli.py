"""The `audit` command."""

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from nla.support.command import run
from nla.support.files import replacing

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Does an open model know, inside, that it is being tested?",
)


ModelOption = Annotated[str | None, typer.Option(help="The model, e.g. local/smollm2.")]
Out = Annotated[Path, typer.Option(help="Folder of the audit: config, logs, tables, audit.json.")]


@app.command("run")
def run_audit_command(
    config: Annotated[Path | None, typer.Argument(help="AUDIT.toml; or give --model and --tasks.")] = None,
    out: Out = Path("audit"),
    model: ModelOption = None,
    tasks: Annotated[str | None, typer.Option(help="Comma-separated: names in tasks/, or paths of task files.")] = None,
    steer: Annotated[str | None, typer.Option(help="Comma-separated strengths of the steering vector, e.g. +0.1,-0.1.")] = None,
    source: Annotated[str | None, typer.Option(help="hub or bundled, for every task.")] = None,
    limit: Annotated[int | None, typer.Option(help="Items a task.")] = None,
    tokens: Annotated[int | None, typer.Option(help="Response tokens read a transcript.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest response.")] = None,
    verbalizer: Annotated[str | None, typer.Option(help="What turns vectors into text.")] = None,
    grader: Annotated[str | None, typer.Option(help="What labels the explanations.")] = None,
    random_directions: Annotated[int | None, typer.Option(help="Random steering directions a strength.")] = None,
    rewrite: Annotated[str | None, typer.Option(help="Comma-separated framings of the prompts: realistic, paraphrase.")] = None,
    controls: Annotated[int | None, typer.Option(help="Vectors for the instrument's own controls; 0 leaves them out.")] = None,
    plan: Annotated[bool, typer.Option(help="Only show what would run, and what it could detect.")] = False,
) -> None:
    """Run tasks x conditions, and analyse them. The same command goes on after an interruption, and adds only what is new."""
    from audit.analysis.analyze import analyze
    from audit.config import make_audit, read_audit
    from audit.running.run import run_audit
    from audit.terminal import plan_table, result_table

    given = {
        "model": model,
        "tasks": tasks.split(",") if tasks else None,
        "steer": steer.split(",") if steer else None,
        "source": source,
        "limit": limit,
        "tokens": tokens,
        "max_tokens": max_tokens,
        "verbalizer": verbalizer,
        "grader": grader,
        "random_directions": random_directions,
        "rewrite": rewrite.split(",") if rewrite else None,
        "controls": controls,
    }
    fields = read_audit(config).model_dump(exclude_unset=True) if config else {}
    audit = make_audit(fields | {name: value for name, value in given.items() if value is not None}, str(config or "the command line"))
    console = Console()
    if plan:
        console.print(plan_table(audit, out))
        return
    run_audit(audit, out)
    if audit.controls:
        from audit.controls.measure import run_controls

        run_controls(out, lambda what: console.print(what, style="dim"), again=False)
    console.print(result_table(analyze(out)))
    console.print(f"{out / 'audit.json'}; logs: inspect view --log-dir {shlex.quote(str(out / 'logs'))}", soft_wrap=True, markup=False)


@app.command()
def status(out: Out = Path("audit")) -> None:
    """Which cells of an audit are done."""
    from audit.config import stored_config
    from audit.terminal import status_table

    Console().print(status_table(stored_config(out), out))


@app.command("analyze")
def analyze_command(out: Out = Path("audit")) -> None:
    """Compute `audit.json` again from the logs of an audit."""
    from audit.analysis.analyze import analyze
    from audit.terminal import result_table

    Console().print(result_table(analyze(out)))


@app.command("controls")
def controls_command(out: Out = Path("audit")) -> None:
    """Measure again what verbalizer and grader say where there is nothing to find; `audit run` does it by itself."""
    from audit.analysis.analyze import analyze
    from audit.controls.measure import run_controls
    from audit.terminal import controls_table

    console = Console()
    run_controls(out, lambda what: console.print(what, style="dim"))
    console.print(controls_table(analyze(out)))


@app.command("rewrite")
def rewrite_command(
    task: Annotated[str, typer.Argument(help="Name of a task in tasks/, or the path of a task file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File of the rewrites (JSON lines).")],
    rewriter: Annotated[str, typer.Option(help="The model that rewrites, e.g. anthropic/MODEL; or bundled, to check the shipped ones.")],
    judge: Annotated[str | None, typer.Option(help="The model that compares the realism of original and rewrite.")] = None,
    framing: Annotated[str, typer.Option(help="Comma-separated: realistic, paraphrase.")] = "realistic,paraphrase",
    source: Annotated[str, typer.Option(help="hub, bundled or a file, as for the task.")] = "hub",
    limit: Annotated[int | None, typer.Option(help="Items, at most.")] = None,
) -> None:
    """Rewrite a task's prompts so that they read like real use, and, as their control, in neutral other words."""
    from audit.running.rewrite import rewrite_task

    made, pairs = rewrite_task(task, source, framing.split(","), rewriter, judge, limit, out)
    console = Console(soft_wrap=True, markup=False, highlight=False)
    for before, after in pairs:
        console.print(f"--- before\n{before}\n--- after\n{after}\n")
    failed = [one for one in made if one.rewrite is None]
    console.print(f"{len(made) - len(failed)} of {len(made)} rewrites in {out}")
    for one in failed:
        console.print(f"  without: {one.sample_id} {one.framing}: {'; '.join(one.why_not)}")


@app.command("compare")
def compare_command(
    a: Annotated[Path, typer.Argument(help="Folder of an audit.")],
    b: Annotated[Path, typer.Argument(help="Folder of another.")],
    json_out: Annotated[Path | None, typer.Option("--json", help="Also write every number to this file.")] = None,
) -> None:
    """Compare two audits item by item: models, layers, pairs, graders or dates."""
    from pydantic import TypeAdapter

    from audit.analysis.compare import Comparison, compare
    from audit.terminal import comparison_table

    found = compare(a, b)
    if json_out is not None:
        with replacing(json_out) as scratch:
            scratch.write_bytes(TypeAdapter(Comparison).dump_json(found, indent=1))
    Console().print(comparison_table(found))


@app.command("score")
def score_command(
    logs: Annotated[list[str], typer.Argument(help="Inspect logs (.eval), or folders of them.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the copies with awareness scores.")] = Path("audited"),
    model: Annotated[str | None, typer.Option(help="The open model behind the logs, where their model name does not tell.")] = None,
    tokens: Annotated[int, typer.Option(help="Response tokens read a transcript.", min=1)] = 50,
    verbalizer: Annotated[str, typer.Option(help="What turns vectors into text.")] = "av",
    nla: Annotated[str | None, typer.Option(help="The trained pair.")] = None,
    grader: Annotated[str, typer.Option(help="What labels the explanations.")] = "rules",
    layer: Annotated[int | None, typer.Option(help="Decoder block to read.")] = None,
    seed: Annotated[int, typer.Option(help="Of the choice of tokens.")] = 0,
    blurb: Annotated[str, typer.Option(help="What the evaluation is, for graders that use it.")] = "",
) -> None:
    """Add awareness to finished logs of an open model, whatever provider made them."""
    from audit.running.rescore import ScoreSettings, score_logs

    console = Console(soft_wrap=True, markup=False, highlight=False)
    settings = ScoreSettings(model, tokens, verbalizer, nla, grader, layer, seed, blurb)
    for path in score_logs(logs, out, settings, lambda what: console.print(what, style="dim")):
        console.print(str(path))


@app.command("tasks")
def tasks_command() -> None:
    """All tasks with their data: source, licence, size, and whether they are here."""
    from rich.table import Table

    from audit.running.task_list import task_infos

    table = Table("task", "what", "role", "bundled", "hub", "licence", "data")
    for one in task_infos():
        table.add_row(one.name, one.title, one.role, str(one.bundled or ""), one.hub, one.licence, one.state)
    Console().print(table)


@app.command("new-task")
def new_task_command(
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits and _.")],
    folder: Annotated[Path, typer.Option(help="Folder of task files.")] = Path("tasks"),
) -> None:
    """Start a task of your own: a runnable file and twelve stand-in items."""
    from audit.running.task_list import new_task

    console = Console(soft_wrap=True, markup=False, highlight=False)
    for path in new_task(name, folder):
        console.print(str(path))
    console.print(f"try it: inspect eval {folder / name}.py --model local/smollm2 --limit 2")


data_app = typer.Typer(no_args_is_help=True, help="Data of the tasks.")
app.add_typer(data_app, name="data")


@data_app.command("fetch")
def fetch_command(names: Annotated[list[str], typer.Argument(help="Tasks whose hub data are to be cached.")]) -> None:
    """Get hub data at their pinned revisions now; with HF_HUB_OFFLINE=1 runs then need no network."""
    from audit.running.task_list import fetch_data

    console = Console(soft_wrap=True, markup=False, highlight=False)
    for name in names:
        for source, rows in fetch_data(name):
            console.print(f"{name}: {rows} rows of {source}")


@app.command("groups")
def groups_command(out: Out = Path("audit")) -> None:
    """Whether explanations separate the positive control from items without it, by word scores that need no grader.

    Without it: the same task's items, and for a benchmark also the deployment controls, which differ in more than the statement.
    """
    import pandas as pd

    from audit.config import stored_config
    from audit.controls.known_groups import separations

    stored_config(out)
    console = Console()
    for one in separations(*(pd.read_parquet(out / f"{name}.parquet") for name in ("transcripts", "explanations"))):
        other = "itself" if one.against == one.task else one.against
        console.print(
            f"{one.task} against {other}: AUROC {one.auroc:.2f} [{one.low:.2f}, {one.high:.2f}] of the share of explanations "
            f"with {one.score}: {one.mean_stated:.1%} in {one.n_stated} transcripts with the statement, "
            f"{one.mean_base:.1%} in {one.n_base} without",
            soft_wrap=True,
            markup=False,
        )


@app.command("schema")
def schema_command() -> None:
    """The JSON schema of `audit.json`."""
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
    prevalence: Annotated[float, typer.Option(help="Share of YES at which the PPV is to hold.")] = 0.05,
    controls: Annotated[list[Path] | None, typer.Option(help="Log, or folder of logs, of a deployment control; may be repeated.")] = None,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
) -> None:
    """Measure a grader, and annotators, on labelled texts. Exits 1 where a bound fails or a figure fell, so that it can guard a build."""
    from audit.labelling.agreement_report import AgreementConfig, measure, show, write_record

    bounds = (min_kappa, min_sensitivity, min_specificity)
    report = measure(AgreementConfig(labels, grader, split, against, json, *bounds, max_drop, prevalence, tuple(controls or ()), seed))
    show(report, Console())
    if json is not None:
        write_record(report, json)
    if report.failures:
        raise typer.Exit(1)


def main() -> None:
    """Entry point: a user's mistake is one message on stderr and exit status 2, never a traceback."""
    run(app)


if __name__ == "__main__":
    main()
