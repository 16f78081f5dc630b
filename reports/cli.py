"""The commands of the `audit` command that need pages and figures: `audit demo`, `audit report` and `audit label`.

`audit.cli` finds this app through the entry-point group `audit.commands`.
"""

import contextlib
import shlex
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from nla.support.display import plain
from nla.support.errors import ConfigError

if TYPE_CHECKING:
    from audit.labelling.session import Labelling

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command("demo")
def demo(
    limit: Annotated[int | None, typer.Option(help="Items per task (at most 12); default 6, with --quick 3.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the audits and their reports.")] = Path("demo"),
    measures: Annotated[
        str | None, typer.Option(help="Measures to take; default probe,verbalized. follow_up takes twice as long, nla much longer.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Torch threads; by default torch's choice.", min=1)] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A first look: two models, few items, wide intervals.")] = False,
) -> None:
    """Audit three small models of which the answer is known: one that carries an implanted state, one with the same habit under a cue
    that has nothing to do with evaluation, and their base. Ends with a table, three sentences and a report.

    Example: audit demo --quick
    """
    from nla.models.sources import fetch_with_progress
    from reports.demo import FULL, QUICK, conclusions, demo_table, run_demo

    if limit is not None and not 1 <= limit <= 12:
        raise ConfigError(f"--limit {limit}: expected 1 to 12, the number of bundled items of every task of the demo.")
    fetch_with_progress("smollm2")
    sizes = QUICK if quick else FULL
    sizes = replace(sizes, limit=limit or sizes.limit, measures=measures or sizes.measures, threads=threads)
    results = run_demo(sizes, out, Console(stderr=True))
    console = Console()
    console.print(demo_table(results))
    for sentence in conclusions(results):
        console.print(plain(f"- {sentence}"))
    first = next(iter(results))
    page = out / first / "report" / "index.html"
    console.print(plain(f"Report: {page}"), soft_wrap=True)
    folders = [shlex.quote(str(out / name)) for name in list(results)[:2]]
    console.print(plain(f"Next: audit compare {' '.join(folders)}"), soft_wrap=True)


@app.command("report")
def report(
    audit: Annotated[Path, typer.Argument(help="Folder of an audit (`audit run --out`).")] = Path("audit"),
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the report; an older report in it is replaced.")] = Path("report"),
    compare: Annotated[
        list[Path] | None, typer.Option(help="Folder of another audit (B): also writes compare.html. With several, one panel per model.")
    ] = None,
    by: Annotated[str | None, typer.Option(help="With --compare: one panel per model, layer, nla, grader, ... instead of pairs.")] = None,
    check: Annotated[
        list[Path] | None, typer.Option(help="A file of `nla organism check --json`, for a figure; may be given several times.")
    ] = None,
    readers: Annotated[
        list[Path] | None, typer.Option(help="A file of `audit readers --json`, for a section; may be given several times.")
    ] = None,
    pdf: Annotated[bool, typer.Option("--pdf", help="Also print the page into report.pdf, by Chromium.")] = False,
) -> None:
    """Write a self-contained page, Markdown, figures and tables of an audit.

    Example: audit report audit -o report --check check.json
    """
    from audit.analysis.analyze import analyze_folder
    from audit.analysis.stored import is_analyzed, read_stored
    from nla.organisms.stored_check import read_check, read_spectrum_file
    from reports.build import build_report
    from reports.pdf import find_browser, print_page

    if by is not None and not compare:
        raise ConfigError("--by sorts several audits into panels: expected --compare FOLDER with it.")
    browser = find_browser() if pdf else None
    start = time.perf_counter()
    checks = [read_check(path) for path in check or []]
    spectra = [read_spectrum_file(path) for path in readers or []]
    stored = read_stored(audit) if is_analyzed(audit) else analyze_folder(audit)
    page = build_report(stored, out, checks, spectra)
    console = Console()
    if browser is not None:
        console.print(plain(print_page(browser, page, out)), soft_wrap=True)
    if compare:
        console.print(plain(_comparison_page([audit, *compare], by, out)), soft_wrap=True)
    console.print(plain(f"{page} ({page.stat().st_size / 1e6:.1f} MB, {time.perf_counter() - start:.1f} s)"), soft_wrap=True)


def _comparison_page(folders: list[Path], by: str | None, out: Path) -> Path:
    """Write `compare.html`: two audits item by item, or a panel for each value of `by`."""
    from audit.analysis.compare import compare
    from audit.analysis.panels import panels
    from audit.analysis.result import RESULT_FILE, read_result
    from audit.analysis.stored import is_analyzed
    from reports.compare_page import build_comparison
    from reports.panels_page import build_panels

    if by is not None or len(folders) > 2:
        return build_panels(panels(folders, by or "model"), by or "model", out)
    first, second = folders
    results = (read_result(first / RESULT_FILE), read_result(second / RESULT_FILE)) if is_analyzed(second) else None
    return build_comparison(compare(first, second), str(first), str(second), out, results)


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
