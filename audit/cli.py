"""The `audit` command."""

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from nla.cli import fetch_with_progress, run

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Does an open model know, inside, that it is being tested?",
)


@app.command()
def demo(
    limit: Annotated[int, typer.Option(help="Items a condition (at most 40).")] = 40,
    tokens: Annotated[int, typer.Option(help="Response tokens read a transcript.")] = 50,
    out: Annotated[Path, typer.Option(help="Folder for the logs.")] = Path("demo"),
    verbalizer: Annotated[str, typer.Option(help="What turns vectors into text: logit_lens or selfie.")] = "logit_lens",
    grader: Annotated[str, typer.Option(help="What labels the explanations.")] = "rules",
    threads: Annotated[int | None, typer.Option(help="Torch threads; default: torch's choice.")] = None,
) -> None:
    """Measure evaluation awareness of the embedded model on bundled data: a benchmark, a deployment control, a positive control."""
    fetch_with_progress("smollm2")
    from audit.demo import DemoConfig, demo_table, run_demo

    config = DemoConfig(out, limit, tokens, verbalizer, grader, threads)
    rows = run_demo(config)
    console = Console()
    console.print(demo_table(rows, config))
    console.print(
        f"Logs: {out / 'logs'}. Open them with: inspect view --log-dir {shlex.quote(str(out / 'logs'))}", soft_wrap=True, markup=False
    )


@app.command()
def agreement(
    labels: Annotated[Path, typer.Argument(help="Labelled texts: JSONL (graders/labels/README.md), or flat CSV or JSONL.")],
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
    from audit.agreement_report import AgreementConfig, measure, show, write_record

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
