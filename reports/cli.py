"""The commands of the `audit` command that need pages and figures: `audit demo`, `audit report` and `audit label`.

`audit.cli` finds this app through the entry-point group `audit.commands`.
"""

import contextlib
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from nla.support.display import plain

if TYPE_CHECKING:
    from audit.labelling.session import Labelling

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command("demo")
def demo(
    limit: Annotated[int | None, typer.Option(help="Items per cell (at most 40); default 12, with --quick 2.")] = None,
    tokens: Annotated[int | None, typer.Option(help="Response tokens read per transcript; default 10, with --quick 4.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the audit and its report.")] = Path("demo"),
    verbalizer: Annotated[
        str, typer.Option(help="Module that turns vectors into text: av (the shipped pair), logit_lens or selfie.")
    ] = "av",
    grader: Annotated[str, typer.Option(help="Grader of the explanations.")] = "rules",
    threads: Annotated[int | None, typer.Option(help="Torch threads; by default torch's choice.", min=1)] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A first look: few items, short replies, wide intervals.")] = False,
) -> None:
    """Run a small audit of the embedded model on bundled data, to a report: a benchmark and a deployment control, each also with a
    system prompt that states the evaluation.

    Example: audit demo --limit 4
    """
    from audit import read_result, run_audit
    from audit.terminal import result_table
    from nla.models.sources import fetch_with_progress
    from reports.build import build_report

    fetch_with_progress("smollm2")
    sizes = {"limit": 2, "tokens": 4, "max_tokens": 32} if quick else {"limit": 12, "tokens": 10, "max_tokens": 128}
    sizes |= {name: size for name, size in (("limit", limit), ("tokens", tokens)) if size is not None}
    fields = {"tasks": ["mmlu", "wildchat"], "source": "bundled", "positive_control": True, "measures": ["nla", "verbalized"]}
    chosen = sizes | {"verbalizer": verbalizer, "grader": grader, "controls": 0}
    args = {} if threads is None else {"threads": threads}
    result = run_audit({"model": "local/smollm2", "model_args": args} | fields | chosen, out)
    console = Console()
    console.print(result_table(result))
    page = build_report(read_result(out), out / "report")
    console.print(plain(f"Report: {page}. Logs: inspect view --log-dir {shlex.quote(str(out / 'logs'))}"), soft_wrap=True)


@app.command("report")
def report(
    audit: Annotated[Path, typer.Argument(help="Folder of an audit (`audit run --out`).")] = Path("audit"),
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the report; an older report in it is replaced.")] = Path("report"),
    compare: Annotated[Path | None, typer.Option(help="Folder of another audit (B): also writes compare.html.")] = None,
    check: Annotated[
        list[Path] | None, typer.Option(help="A file of `nla organism check --json`, for a figure; may be given several times.")
    ] = None,
) -> None:
    """Write a self-contained page, Markdown, figures and tables of an audit.

    Example: audit report audit -o report --check check.json
    """
    from audit.analysis.analyze import analyze_folder
    from audit.analysis.compare import compare as compare_audits
    from audit.analysis.stored import is_analyzed, read_stored
    from nla.organisms.stored_check import read_check
    from reports.build import build_report
    from reports.compare_page import build_comparison

    start = time.perf_counter()
    checks = [read_check(path) for path in check or []]
    page = build_report(read_stored(audit) if is_analyzed(audit) else analyze_folder(audit), out, checks)
    console = Console()
    if compare is not None:
        comparison = compare_audits(audit, compare)
        console.print(plain(build_comparison(comparison, str(audit), str(compare), out)), soft_wrap=True)
    console.print(plain(f"{page} ({page.stat().st_size / 1e6:.1f} MB, {time.perf_counter() - start:.1f} s)"), soft_wrap=True)


@app.command("label")
def label(
    source: Annotated[Path, typer.Argument(help="Scored logs (a file or folder), or a .parquet, .jsonl or .csv of explanations.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File of labels; the same command resumes it.")] = Path("labels.jsonl"),
    n: Annotated[
        int, typer.Option("--n", help="Number of explanations to label; those that the grader flagged are drawn more often.", min=1)
    ] = 200,
    seed: Annotated[int, typer.Option(help="Seed of the sample.")] = 0,
    port: Annotated[int, typer.Option(help="Port on the loopback interface; 0 takes a free one.", min=0, max=65535)] = 0,
    adjudicate: Annotated[
        bool, typer.Option("--adjudicate", help="Show only the texts on which annotators differ, to settle them.")
    ] = False,
) -> None:
    """Serve a page on which people label explanations independently, without seeing verdicts. Then: audit agreement LABELS.

    Example: audit label audit/logs -o labels.jsonl --n 200
    """
    from audit.labelling.session import open_labelling
    from reports.label_server import LabelServer

    labelling = open_labelling(source, out, n, seed)
    console = Console()
    with LabelServer(labelling, port, adjudicate=adjudicate) as server:
        total = len(labelling.session.items)
        console.print(plain(f"{server.url}  {total} explanations of {source}, labels in {out}. Ctrl-C ends."), soft_wrap=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
    for line in labelling_summary(labelling):
        console.print(plain(line), soft_wrap=True)


def labelling_summary(labelling: "Labelling") -> list[str]:
    """Return each annotator's progress, and the share of YES among all explanations that their labels imply."""
    from audit.labelling.sample import weighted_share
    from reports.words import rate_text

    counts = labelling.counts()
    if not counts:
        return ["No text has been labelled."]
    texts, total = labelling.texts(), len(labelling.session.items)
    return [
        f"{name}: {count} of {total} labelled; YES among all explanations {rate_text(weighted_share(texts, name, 'YES'))}"
        for name, count in counts.items()
    ]
