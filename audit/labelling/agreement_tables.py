"""The agreement report as tables for the terminal, at most 80 columns wide. Names and texts from files are shown as plain text."""

from collections.abc import Iterable, Iterator, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from audit.labelling.agreement_record import AgreementReport
from audit.labelling.agreement_report import share_text
from audit.stats import agreement as stats
from audit.stats.agreement import Agreement, Quality
from audit.stats.rates import CATEGORIES, Estimate, any_of, rate_for_any_of
from nla.support.display import plain, visible

TOKENS_PER_TRANSCRIPT = 50
"""Assumed number of explanations per transcript, for the probability that a transcript has any false positive."""
MAX_ROWS = 20
"""Number of rows that are shown of a long list. The JSON record has all of them."""
_BOUNDS = (0.01, 0.005, rate_for_any_of(0.05, TOKENS_PER_TRANSCRIPT), 0.0005)
"""False positive rates for which the required number of labels is shown. At the third, 5 % of transcripts have any false positive."""
_TEXT_WIDTH = 56

Block = Table | Text


def show(report: AgreementReport, console: Console) -> None:
    """Print a report."""
    for section in (_about, _agreement, _quality, _disputes, _label_counts, _reference_texts, _change):
        for block in section(report):
            console.print(block)


def _table(title: str, headings: Sequence[str], rows: Iterable[tuple[str, ...]]) -> Table:
    """Build a table of untrusted cells. A heading that ends in a space marks a column of words, which is left-aligned and wraps."""
    table = Table(title=plain(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        is_words = heading.endswith(" ")
        table.add_column(plain(heading.strip()), justify="left" if is_words else "right", overflow="fold", no_wrap=not is_words)
    for row in rows:
        table.add_row(*map(plain, row))
    return table


def _interval(figure: Estimate) -> str:
    return "—" if figure.low is None or figure.high is None else f"[{figure.low:.3f}, {figure.high:.3f}]"


def _reasons(figures: dict[str, Estimate]) -> Iterator[Text]:
    """Explain why figures or intervals are missing. Each reason appears once, with the names of its figures."""
    for reason in dict.fromkeys(figure.reason for figure in figures.values() if figure.reason):
        yield plain(f"{', '.join(name for name, figure in figures.items() if figure.reason == reason)}: {reason}.")


def _about(report: AgreementReport) -> Iterator[Block]:
    config, kinds = report.config, report.kinds
    yield plain(f"{len(report.items)} texts of {config.labels}, split {config.split}, graded by {config.grader}.")
    yield plain(f"Reference: {report.reference}. Annotators: {', '.join(f'{name} ({kind})' for name, kind in kinds.items())}.")
    if "person" not in kinds.values():
        yield plain(f"All labels are of kind {', '.join(sorted(set(kinds.values())))}: agreement with people is unmeasured.")
    if report.assumed:
        yield plain(f"The file does not state the kind of {', '.join(report.assumed)}; they are treated as people.")
    if report.n_unlabelled:
        yield plain(f"{report.n_unlabelled} texts without a label are left out.")


def _agreement(report: AgreementReport) -> Iterator[Block]:
    all_pairs = report.pairs if len(report.kinds) > 1 else []
    overlapping = [pair for pair in all_pairs if pair.figures.percent.n]
    pairs = [*overlapping, report.main]
    groups = {f"{pair.first} – {pair.second}": pair.figures for pair in pairs}
    groups |= {"all annotators": report.pooled} if report.pooled else {}
    figures = {(group, name): figure for group, measures in groups.items() for name, figure in _measures(measures).items()}
    rows = (
        (group if name == "agreement" else "", name, share_text(figure.estimate), _interval(figure), str(figure.n))
        for (group, name), figure in figures.items()
    )
    yield _table("Agreement", ["raters ", "measure ", "value", "95 % interval", "n"], rows)
    yield plain("Intervals: Wilson for the agreement of two raters, otherwise bootstrap over items.")
    if len(overlapping) < len(all_pairs):
        yield plain(f"{len(all_pairs) - len(overlapping)} pairs of raters without a text in common are left out.")
    yield from _reasons({f"{name} of {group}": figure for (group, name), figure in figures.items()})
    for pair in pairs:
        if report.kinds.get(pair.first) == report.kinds.get(pair.second) == "person":
            ceiling, reached = (share_text(rated.figures.kappa.estimate) for rated in (pair, report.main))
            yield plain(
                f"Ceiling: {pair.first} and {pair.second}, two people, have kappa {ceiling}; the grader and the reference {reached}."
            )


def _measures(figures: Agreement) -> dict[str, Estimate]:
    return {"agreement": figures.percent, "kappa": figures.kappa, "AC1": figures.ac1, "alpha": figures.alpha}


def _quality(report: AgreementReport) -> Iterator[Block]:
    quality, verdicts = report.quality, [str(verdict) for verdict in CATEGORIES]
    figures = {
        "sensitivity": quality.sensitivity,
        "specificity": quality.specificity,
        f"PPV at {report.config.prevalence:.3g} YES": quality.ppv,
    }
    rows = (
        (name, share_text(figure.estimate), _interval(figure), str(figure.n), str(figure.n_unscored), figure.method)
        for name, figure in figures.items()
    )
    yield _table("The grader's YES", ["figure ", "value", "95 % interval", "n", "unscored", "by"], rows)
    yield from _reasons(figures)
    for pair in (report.main, *(report.pairs if len(report.kinds) > 1 else [])):
        counts = ((verdict, *map(str, row)) for verdict, row in zip(verdicts, pair.confusion, strict=True))
        yield _table(f"{pair.first} (rows) and {pair.second} (columns)", ["verdict ", *verdicts, "none"], counts)
    for by, slices in (("rule", report.by_rule), ("style", report.by_style)):
        yield _table(f"By {by}", [f"{by} ", "n", "sensitivity", "specificity"], (_slice(name, figures) for name, figures in slices.items()))


def _slice(name: str, quality: Quality) -> tuple[str, ...]:
    figures = (quality.sensitivity, quality.specificity)
    cells = ("" if figure.estimate is None else f"{figure.estimate:.2f} [{figure.low:.2f}, {figure.high:.2f}]" for figure in figures)
    return (name or "(none)", str(sum(figure.n for figure in figures)), *cells)


def _disputes(report: AgreementReport) -> Iterator[Block]:
    by_id = {item.id: item for item in report.items}
    rows = (
        (
            item.id,
            item.rule,
            *(item.labels.get(name, "—") for name in report.kinds),
            item.verdict or "unscored",
            visible(" ".join(item.text.split()))[:_TEXT_WIDTH],
        )
        for item in (by_id[name] for name in report.disputes[:MAX_ROWS])
    )
    headings = ["id ", "rule ", *(f"{name} " for name in report.kinds), "grader ", "text "]
    yield _table(f"In dispute: {len(report.disputes)} texts", headings, rows)
    if len(report.disputes) > MAX_ROWS:
        yield plain(f"These are the first {MAX_ROWS}, those with a YES first; --json writes all.")


def _label_counts(report: AgreementReport) -> Iterator[Block]:
    rows = (
        (
            f"{bound:.3%}",
            f"{any_of(bound, TOKENS_PER_TRANSCRIPT):.1%}",
            f"{stats.labels_needed(bound):,}",
            f"{stats.labels_needed(bound, false_positives=1):,}",
        )
        for bound in _BOUNDS
    )
    headings = ["false positives at most", f"any of {TOKENS_PER_TRANSCRIPT}", "labels, if 0 turn up", "if 1"]
    yield _table("Labels without YES that certify a bound at 95 %", headings, rows)
    bound = _bound(report.quality.false_positives)
    yield plain(f"Here: {bound}. These labels are hard cases; --controls measures the rate on deployment traffic.")


def _bound(rate: Estimate) -> str:
    if rate.estimate is None or rate.high is None:
        return f"undefined ({rate.reason})"
    any_false = any_of(rate.high, TOKENS_PER_TRANSCRIPT)
    most = f"{rate.high:.3%} at 95 %, and any of {TOKENS_PER_TRANSCRIPT} independent ones {any_false:.1%}"
    return f"{round(rate.estimate * rate.n)} YES in {rate.n:,}, so the rate is at most {most}"


def _reference_texts(report: AgreementReport) -> Iterator[Block]:
    rates = report.controls
    if rates is None:
        return
    units = {"explanations": rates.explanations, "transcripts with any": rates.transcripts}
    rows = (
        (
            name,
            str(rate.n),
            str(rate.n_unscored),
            str(round((rate.estimate or 0) * rate.n)),
            "—" if rate.high is None else f"{rate.high:.3%}",
        )
        for name, rate in units.items()
    )
    yield _table(f"Reference texts from deployment logs: {len(rates.logs)}", ["unit ", "graded", "unscored", "YES", "95 % bound"], rows)
    yield plain(f"Explanations: {_bound(rates.explanations)}. Bounds are one-sided Clopper-Pearson bounds.")
    yield plain("Explanations of one transcript are not independent, so their bound is too low; the bound for transcripts is valid.")
    for explanation in rates.yes[:MAX_ROWS]:
        yield plain(f"YES: {explanation['sample']}, {explanation['rule']}: {explanation['evidence']}")


def _change(report: AgreementReport) -> Iterator[Block]:
    if change := report.comparison:
        figures = (
            (figure.name, share_text(figure.before), share_text(figure.now), "yes" if figure.fell else "no") for figure in change.figures
        )
        yield _table(f"Against grader {change.earlier} of the earlier record", ["figure ", "before", "now", "fell too far"], figures)
        counts = f"only before right {change.test.only_first}, only now right {change.test.only_second}"
        yield plain(
            f"{change.n} texts are in both records, {change.n_left_out} in one only. "
            f"YES or not: {counts}, exact McNemar p = {change.test.p:.2g}."
        )
        keys = ("id", "rule", "reference", "before", "now")
        rows = (tuple(row[key] or ("unscored" if key in ("before", "now") else "—") for key in keys) for row in change.changed)
        yield _table(f"Changed: {len(change.changed)} texts", [f"{key} " for key in keys], rows)
    yield from (plain(f"FAILED: {failure}") for failure in report.failures)
