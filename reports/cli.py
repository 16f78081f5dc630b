"""The `audit` command with what needs the layer of reports: everything of `audit.cli`, `audit report` and `audit demo`."""

import contextlib
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from audit.cli import app
from nla.models.sources import fetch_with_progress
from nla.support.command import run

if TYPE_CHECKING:
    from audit.labelling.session import Labelling


@app.command("demo")
def demo(
    limit: Annotated[int, typer.Option(help="Items a cell (at most 40).")] = 12,
    tokens: Annotated[int, typer.Option(help="Response tokens read a transcript.")] = 10,
    out: Annotated[Path, typer.Option(help="Folder for the audit and its report.")] = Path("demo"),
    verbalizer: Annotated[str, typer.Option(help="What turns vectors into text: av (the shipped pair), logit_lens or selfie.")] = "av",
    grader: Annotated[str, typer.Option(help="What labels the explanations.")] = "rules",
    threads: Annotated[int | None, typer.Option(help="Torch threads; default: torch's choice.")] = None,
) -> None:
    """The whole story on the embedded model and bundled data, to a report: a benchmark and a deployment control, each also with a
    system prompt that states the evaluation."""
    from audit.analysis.analyze import analyze
    from audit.config import make_audit
    from audit.running.run import run_audit
    from audit.terminal import result_table
    from reports.build import build_report

    fetch_with_progress("smollm2")
    fields = {"tasks": ["mmlu", "wildchat"], "source": "bundled", "max_tokens": 128, "positive_control": True}
    chosen = {"limit": limit, "tokens": tokens, "verbalizer": verbalizer, "grader": grader}
    args = {} if threads is None else {"threads": threads}
    run_audit(make_audit({"model": "local/smollm2", "model_args": args} | fields | chosen, "audit demo"), out)
    console = Console()
    console.print(result_table(analyze(out)))
    page = build_report(out, out / "report")
    console.print(f"Report: {page}. Logs: inspect view --log-dir {shlex.quote(str(out / 'logs'))}", soft_wrap=True, markup=False)


@app.command("report")
def report(
    audit: Annotated[Path, typer.Argument(help="Folder of an audit (`audit run --out`).")] = Path("audit"),
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the report; an older report there is replaced as a whole.")] = Path(
        "report"
    ),
    compare: Annotated[Path | None, typer.Option(help="Folder of another audit (B): also writes compare.html.")] = None,
) -> None:
    """Write a self-contained page, Markdown, figures and tables of an audit."""
    from reports.build import build_report
    from reports.compare_page import build_comparison

    start = time.perf_counter()
    page = build_report(audit, out)
    if compare is not None:
        Console().print(str(build_comparison(audit, compare, out)), markup=False, soft_wrap=True)
    Console().print(f"{page} ({page.stat().st_size / 1e6:.1f} MB, {time.perf_counter() - start:.1f} s)", markup=False, soft_wrap=True)


@app.command("label")
def label(
    source: Annotated[Path, typer.Argument(help="Scored logs (a file or folder), or a .parquet, .jsonl or .csv of explanations.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File of labels; the same command goes on with it.")] = Path("labels.jsonl"),
    n: Annotated[int, typer.Option("--n", help="Explanations to label; more of those the grader flagged.", min=1)] = 200,
    seed: Annotated[int, typer.Option(help="Of the sample.")] = 0,
    port: Annotated[int, typer.Option(help="On this machine's loopback interface; 0 takes a free one.", min=0, max=65535)] = 0,
    adjudicate: Annotated[bool, typer.Option("--adjudicate", help="Show what annotators differ on, to settle it.")] = False,
) -> None:
    """Serve a page on which people label explanations, blinded, each for themselves. Then: audit agreement LABELS."""
    from audit.labelling.session import open_labelling
    from reports.label_server import LabelServer

    labelling = open_labelling(source, out, n, seed)
    console = Console()
    with LabelServer(labelling, port, adjudicate=adjudicate) as server:
        total = len(labelling.session.items)
        console.print(f"{server.url}  {total} explanations of {source}, labels in {out}. Ctrl-C ends.", soft_wrap=True, markup=False)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
    for line in labelling_summary(labelling):
        console.print(line, soft_wrap=True, markup=False)


def labelling_summary(labelling: "Labelling") -> list[str]:
    """How far each annotator has come, and the share of YES among all explanations that their labels imply."""
    from audit.labelling.session import weighted_share
    from reports.words import rate_text

    counts = labelling.counts()
    if not counts:
        return ["No label was given."]
    texts, total = labelling.texts(), len(labelling.session.items)
    return [
        f"{name}: {count} of {total} labelled; YES among all explanations {rate_text(weighted_share(texts, name, 'YES'))}"
        for name, count in counts.items()
    ]


def main() -> None:
    """Entry point: a user's mistake is one message on stderr and exit status 2, never a traceback."""
    run(app)


if __name__ == "__main__":
    main()
