"""`audit agreement`: a grader and annotators on the same labelled texts, as tables, as a JSON record and as a regression test."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import combinations
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from audit.labelling.references import ControlText, Earlier, read_controls, read_earlier
from audit.stats import agreement as stats
from audit.stats.agreement import Agreement, Change, Pair, Quality
from audit.stats.paired import McNemar, mcnemar_exact
from audit.stats.rates import CATEGORIES, MISSING, YES, Codes, Estimate, any_of, codes, false_positive_rate, rate_for_any_of
from graders.base import Verdict
from graders.labelled.grading import GradedText, grade_labels, grade_texts
from graders.labelled.labels import Kind, LabelSet, read_labels
from nla.support.errors import ConfigError, DataError

K = 50
"""Explanations a transcript in the any-of-k figures."""
SHOWN = 20
"""Rows shown of a long list; the record has all."""


@dataclass(frozen=True)
class AgreementConfig:
    """What `audit agreement` is asked for; bounds that are None are not checked."""

    labels: Path
    grader: str = "rules"
    split: str = "test"
    against: Path | None = None
    json: Path | None = None
    min_kappa: float | None = None
    min_sensitivity: float | None = None
    min_specificity: float | None = None
    max_drop: float = 0.02
    prevalence: float = 0.05
    controls: tuple[Path, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("min_kappa", "min_sensitivity", "min_specificity", "max_drop"):
            bound = getattr(self, name)
            if bound is not None and not 0 <= bound <= 1:
                raise ConfigError(f"--{name.replace('_', '-')} {bound} makes no sense; give a number from 0 to 1.")
        if not 0 < self.prevalence < 1:
            raise ConfigError(f"--prevalence {self.prevalence} makes no sense; give a number between 0 and 1.")
        if self.seed < 0 or self.split not in ("dev", "test", "all"):
            raise ConfigError(f"--seed {self.seed} --split {self.split} makes no sense; the seed is 0 or more, the split dev, test or all.")
        if self.json and self.json.is_dir():
            raise ConfigError(f"--json {self.json} is a folder; give the name of a file.")
        if self.json and self.against and self.json.resolve() == self.against.resolve():
            raise ConfigError(f"--json and --against are both {self.json}; name another file, or what is compared with would be lost.")


@dataclass(frozen=True)
class Controls:
    """YES on explanations of deployment transcripts, and on transcripts with any of them; each YES is named."""

    logs: list[str]
    explanations: Estimate
    transcripts: Estimate
    yes: list[dict[str, str]]


@dataclass(frozen=True)
class Comparison:
    """The grader against an earlier one, on the texts of both; the test counts YES or not YES on those that both scored."""

    earlier: str
    n: int
    n_left_out: int
    figures: list[Change]
    test: McNemar
    changed: list[dict[str, str | None]]


@dataclass(frozen=True)
class Report:
    """All that was found. As JSON it is also what a later run is compared with."""

    config: AgreementConfig
    version: str
    labels_sha256: str
    kinds: dict[str, Kind]
    assumed: tuple[str, ...]
    reference: str
    n_unlabelled: int
    main: Pair
    """The reference and the grader."""
    pairs: list[Pair]
    """Every two of the annotators and the grader; with one annotator it is `main` again."""
    pooled: Agreement | None
    """All annotators, without the grader, where there are three or more."""
    quality: Quality
    by_rule: dict[str, Quality]
    by_style: dict[str, Quality]
    controls: Controls | None
    comparison: Comparison | None
    failures: list[str]
    disputes: list[str]
    """Ids of the texts on which any two differ, first those where one says YES."""
    items: list[GradedText]


def measure(config: AgreementConfig) -> Report:
    """Grade the labelled texts and compare.

    Raises:
        ConfigError: there is no such grader, or no text of the split.
        DataError: labels, logs or the earlier record are not what they should be.
    """
    earlier = None if config.against is None else read_earlier(config.against)
    labels = read_labels(config.labels)
    controls = read_controls(config.controls) if config.controls else []
    items = grade_labels(labels, config.split, config.grader)
    reference, verdicts = codes(item.reference for item in items), codes(item.verdict for item in items)
    raters = {name: codes(item.labels.get(name) for item in items) for name in labels.kinds}
    pooled = stats.agreement(np.stack(list(raters.values()), axis=1), np.random.default_rng(config.seed)) if len(raters) > 2 else None
    grader = f"grader {config.grader}"
    main = _pair(("reference", reference), (grader, verdicts), config.seed)
    pairs = [_pair(first, second, config.seed) for first, second in combinations([*raters.items(), (grader, verdicts)], 2)]
    figures = stats.quality(reference, verdicts, config.prevalence)
    comparison = None if earlier is None else _compared(earlier, items, config.max_drop)
    return Report(
        config=config,
        version=version("awareness-audit"),
        labels_sha256=hashlib.sha256(config.labels.read_bytes()).hexdigest(),
        kinds=labels.kinds,
        assumed=labels.assumed,
        reference=_reference(labels, items),
        n_unlabelled=labels.n_unlabelled,
        main=main,
        pairs=pairs,
        pooled=pooled,
        quality=figures,
        by_rule=stats.quality_by([item.rule for item in items], reference, verdicts, config.prevalence),
        by_style=stats.quality_by([item.style for item in items], reference, verdicts, config.prevalence),
        controls=_controls(config.grader, controls) if controls else None,
        comparison=comparison,
        failures=_failures(config, main.figures.kappa, figures, comparison),
        disputes=_disputes(items),
        items=items,
    )


def _pair(first: tuple[str, Codes], second: tuple[str, Codes], seed: int) -> Pair:
    return stats.pair(first[0], second[0], np.stack([first[1], second[1]], axis=1), np.random.default_rng(seed))


def _reference(labels: LabelSet, items: Sequence[GradedText]) -> str:
    """What the reference is, in words."""
    names = [name for name, kind in labels.kinds.items() if kind == labels.reference_kind]
    tied = sum(item.reference is None for item in items)
    without = f"; {tied} texts have none (a tie, or no label of theirs)" if tied else ""
    return (f"the label of {names[0]}" if len(names) == 1 else f"the majority of {', '.join(names)}") + without


def _disputes(items: Sequence[GradedText]) -> list[str]:
    said = {item.id: {*item.labels.values(), item.verdict} - {None} for item in items}
    disputed = [name for name, verdicts in said.items() if len(verdicts) > 1]
    return sorted(disputed, key=lambda name: Verdict.YES not in said[name])


def _controls(grader: str, texts: Sequence[ControlText]) -> Controls:
    grades = grade_texts(grader, [(text.text, text.blurb) for text in texts])
    scored = [(text, grade) for text, grade in zip(texts, grades, strict=True) if not text.unscored and grade.scored]
    flagged = [(text, grade) for text, grade in scored if grade.verdict is Verdict.YES]
    transcripts, with_yes = ({(text.log, text.sample) for text, _ in some} for some in (scored, flagged))
    n_transcripts = len({(text.log, text.sample) for text in texts})
    return Controls(
        logs=sorted({text.log for text in texts}),
        explanations=false_positive_rate(len(flagged), len(scored), n_unscored=len(texts) - len(scored)),
        transcripts=false_positive_rate(len(with_yes), len(transcripts), n_unscored=n_transcripts - len(transcripts)),
        yes=[{"log": text.log, "sample": text.sample, "rule": grade.rule, "evidence": grade.evidence} for text, grade in flagged],
    )


def _compared(earlier: Earlier, items: Sequence[GradedText], max_drop: float) -> Comparison:
    known = {(item.id, item.text): item.verdict for item in earlier.items}
    common = [item for item in items if (item.id, item.text) in known]
    if not common:
        raise DataError("the earlier record has none of these texts; compare on the labels and split that it was made on.")
    was = [known[item.id, item.text] for item in common]
    reference, before, now = codes(item.reference for item in common), codes(was), codes(item.verdict for item in common)
    both = (reference != MISSING) & (before != MISSING) & (now != MISSING)
    truth = reference[both] == YES
    changed = [
        {"id": item.id, "rule": item.rule, "reference": item.reference, "before": old, "now": item.verdict}
        for item, old in zip(common, was, strict=True)
        if old is not item.verdict
    ]
    return Comparison(
        earlier=earlier.config.grader,
        n=len(common),
        n_left_out=len(items) + len(earlier.items) - 2 * len(common),
        figures=stats.changes(reference, before, now, max_drop),
        test=mcnemar_exact((before[both] == YES) == truth, (now[both] == YES) == truth),
        changed=changed,
    )


def _failures(config: AgreementConfig, kappa: Estimate, figures: Quality, comparison: Comparison | None) -> list[str]:
    """Bounds that do not hold; a bound on an undefined figure does not."""
    bounds = [("kappa", kappa, config.min_kappa), ("sensitivity", figures.sensitivity, config.min_sensitivity)]
    bounds.append(("specificity", figures.specificity, config.min_specificity))
    failed = [
        f"{name} is {'undefined: ' + found.reason if found.estimate is None else f'{found.estimate:.4f}'}, below --min-{name} {least}"
        for name, found, least in bounds
        if least is not None and (found.estimate is None or found.estimate < least)
    ]
    fallen = [change for change in comparison.figures if change.fell] if comparison else []
    return failed + [f"{one.name} fell from {number(one.before)} to {number(one.now)}, by more than {config.max_drop}" for one in fallen]


def write_record(report: Report, path: Path) -> None:
    """Write a report as JSON under a temporary name, then give it its own: a reader finds the old file or the new one.

    Raises:
        DataError: the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(asdict(report), file, default=str, indent=1, allow_nan=False)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as ex:
        raise DataError(f"{path} cannot be written ({ex}); name a file in a folder that can.") from None
    finally:
        if temporary.exists():
            temporary.unlink()


def show(report: Report, console: Console) -> None:
    """Print a report; nothing is wider than 80 columns."""
    blocks = [_about, _agreement, _quality, _disputed, _sizes, _controlled, _against]
    for block in (block for make in blocks for block in make(report)):
        console.print(block)


def plain(text: str) -> str:
    """Untrusted text without line breaks and control characters."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def number(value: float | None) -> str:
    """A share to three digits, or that it is undefined."""
    return "undefined" if value is None else f"{value:.3f}"


def _line(text: str) -> Text:
    return Text(plain(text))


def _table(title: str, headings: Sequence[str], rows: Iterable[tuple[str, ...]]) -> Table:
    """A table of untrusted cells; columns of words are named by a heading that ends in a blank, and wrap."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        words = heading.endswith(" ")
        table.add_column(heading.strip(), justify="left" if words else "right", overflow="fold", no_wrap=not words)
    for row in rows:
        table.add_row(*map(_line, row))
    return table


def _interval(found: Estimate) -> str:
    return "—" if found.low is None or found.high is None else f"[{found.low:.3f}, {found.high:.3f}]"


def _reasons(figures: dict[str, Estimate]) -> Iterator[Text]:
    """Why figures or intervals are missing, each reason once."""
    for reason in dict.fromkeys(found.reason for found in figures.values() if found.reason):
        yield _line(f"{', '.join(name for name, found in figures.items() if found.reason == reason)}: {reason}.")


def _about(report: Report) -> Iterator[Table | Text]:
    config, kinds = report.config, report.kinds
    yield _line(f"{len(report.items)} texts of {config.labels}, split {config.split}, graded by {config.grader}.")
    yield _line(f"Reference: {report.reference}. Annotators: {', '.join(f'{name} ({kind})' for name, kind in kinds.items())}.")
    if "person" not in kinds.values():
        yield _line(f"All labels are of kind {', '.join(sorted(set(kinds.values())))}: agreement with people is unmeasured.")
    if report.assumed:
        yield _line(f"The file does not say of what kind {', '.join(report.assumed)} are: taken for people.")
    if report.n_unlabelled:
        yield _line(f"{report.n_unlabelled} texts without a label are left out.")


def _agreement(report: Report) -> Iterator[Table | Text]:
    among = report.pairs if len(report.kinds) > 1 else []
    between = [one for one in among if one.figures.percent.n]
    pairs = [*between, report.main]
    groups = {f"{one.first} – {one.second}": one.figures for one in pairs}
    groups |= {"all annotators": report.pooled} if report.pooled else {}
    figures = {
        (group, name): found
        for group, some in groups.items()
        for name, found in (("agreement", some.percent), ("kappa", some.kappa), ("AC1", some.ac1), ("alpha", some.alpha))
    }
    rows = (
        (group if name == "agreement" else "", name, number(found.estimate), _interval(found), str(found.n))
        for (group, name), found in figures.items()
    )
    yield _table("Agreement", ["raters ", "measure ", "value", "95 % interval", "n"], rows)
    yield _line("Intervals: Wilson for the agreement of two, else bootstrap over items.")
    if len(between) < len(among):
        yield _line(f"{len(among) - len(between)} pairs without a text in common are left out.")
    yield from _reasons({f"{name} of {group}": found for (group, name), found in figures.items()})
    for one in pairs:
        if report.kinds.get(one.first) == report.kinds.get(one.second) == "person":
            ceiling, reached = (number(found.figures.kappa.estimate) for found in (one, report.main))
            yield _line(f"Ceiling: {one.first} and {one.second}, two people, have kappa {ceiling}; the grader and the reference {reached}.")


def _quality(report: Report) -> Iterator[Table | Text]:
    found, names = report.quality, [str(verdict) for verdict in CATEGORIES]
    named = {"sensitivity": found.sensitivity, "specificity": found.specificity, f"PPV at {report.config.prevalence:.3g} YES": found.ppv}
    rows = ((name, number(one.estimate), _interval(one), str(one.n), str(one.n_unscored), one.method) for name, one in named.items())
    yield _table("The grader's YES", ["figure ", "value", "95 % interval", "n", "unscored", "by"], rows)
    yield from _reasons(named)
    for one in (report.main, *(report.pairs if len(report.kinds) > 1 else [])):
        counts = ((name, *map(str, row)) for name, row in zip(names, one.confusion, strict=True))
        yield _table(f"{plain(one.first)} (rows) and {plain(one.second)} (columns)", ["verdict ", *names, "none"], counts)
    for by, slices in (("rule", report.by_rule), ("style", report.by_style)):
        yield _table(f"By {by}", [f"{by} ", "n", "sensitivity", "specificity"], (_slice(*one) for one in slices.items()))


def _slice(name: str, found: Quality) -> tuple[str, ...]:
    both = (found.sensitivity, found.specificity)
    texts = ("" if one.estimate is None else f"{one.estimate:.2f} [{one.low:.2f}, {one.high:.2f}]" for one in both)
    return (name or "(none)", str(sum(one.n for one in both)), *texts)


def _disputed(report: Report) -> Iterator[Table | Text]:
    items = {item.id: item for item in report.items}
    shown = [items[name] for name in report.disputes[:SHOWN]]
    rows = (
        (one.id, one.rule, *(one.labels.get(name, "—") for name in report.kinds), one.verdict or "unscored", plain(one.text)[:56])
        for one in shown
    )
    headings = ["id ", "rule ", *(f"{plain(name)} " for name in report.kinds), "grader ", "text "]
    yield _table(f"In dispute: {len(report.disputes)} texts", headings, rows)
    if len(report.disputes) > SHOWN:
        yield _line(f"These are the first {SHOWN}, those with a YES first; --json writes all.")


def _sizes(report: Report) -> Iterator[Table | Text]:
    rates = (0.01, 0.005, rate_for_any_of(0.05, K), 0.0005)
    rows = (
        (f"{p:.3%}", f"{any_of(p, K):.1%}", f"{stats.labels_needed(p):,}", f"{stats.labels_needed(p, false_positives=1):,}") for p in rates
    )
    headings = ["false positives at most", f"any of {K}", "labels, if 0 turn up", "if 1"]
    yield _table("Labels without YES that certify a bound at 95 %", headings, rows)
    yield _line(f"Here: {_bound(report.quality.false_positives)}. Labels are hard cases; the rate in use is measured with --controls.")


def _bound(found: Estimate) -> str:
    if found.estimate is None or found.high is None:
        return f"undefined ({found.reason})"
    most = f"{found.high:.3%} at 95 %, and any of {K} independent ones {any_of(found.high, K):.1%}"
    return f"{round(found.estimate * found.n)} YES in {found.n:,}, so the rate is at most {most}"


def _controlled(report: Report) -> Iterator[Table | Text]:
    if (found := report.controls) is None:
        return
    units = {"explanations": found.explanations, "transcripts with any": found.transcripts}
    rows = (
        (name, str(one.n), str(one.n_unscored), str(round((one.estimate or 0) * one.n)), "—" if one.high is None else f"{one.high:.3%}")
        for name, one in units.items()
    )
    yield _table(f"Deployment controls, logs: {len(found.logs)}", ["unit ", "graded", "unscored", "YES", "95 % bound"], rows)
    yield _line(f"Explanations: {_bound(found.explanations)}. Bounds are Clopper-Pearson, one-sided.")
    yield _line("Explanations of one transcript are not independent, so their bound is too low; that of the transcripts is not.")
    yield from (_line(f"YES: {one['sample']}, {one['rule']}: {one['evidence']}") for one in found.yes[:SHOWN])


def _against(report: Report) -> Iterator[Table | Text]:
    if found := report.comparison:
        rows = ((one.name, number(one.before), number(one.now), "yes" if one.fell else "no") for one in found.figures)
        yield _table(f"Against grader {plain(found.earlier)} of the earlier record", ["figure ", "before", "now", "fell too far"], rows)
        test = f"only before right {found.test.only_first}, only now right {found.test.only_second}, exact McNemar p = {found.test.p:.2g}"
        yield _line(f"{found.n} texts are in both, {found.n_left_out} in one only. YES or not: {test}.")
        keys = ("id", "rule", "reference", "before", "now")
        changed = (tuple(one[key] or ("unscored" if key in ("before", "now") else "—") for key in keys) for one in found.changed)
        yield _table(f"Changed: {len(found.changed)} texts", [f"{key} " for key in keys], changed)
    yield from (_line(f"FAILED: {failure}") for failure in report.failures)
