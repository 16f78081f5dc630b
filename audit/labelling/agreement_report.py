"""`audit agreement`: measure how well a grader and annotators agree on labelled texts, and compare the grader with an earlier one."""

import hashlib
from collections.abc import Sequence
from importlib.metadata import version
from itertools import combinations

import numpy as np

from audit.labelling.agreement_record import AgreementConfig, AgreementReport, EarlierRecord, GraderChange, ReferenceTextRates, read_earlier
from audit.labelling.reference_texts import ReferenceTranscripts, read_reference_texts
from audit.stats import agreement as stats
from audit.stats.agreement import Pair, Quality
from audit.stats.paired import mcnemar_exact
from audit.stats.rates import MISSING, YES, Codes, Estimate, codes, false_positive_rate
from graders.base import Verdict
from graders.labelled.grading import GradedText, grade_labels, grade_texts
from graders.labelled.labels import LabelSet, read_labels
from nla.support.errors import DataError


def measure(config: AgreementConfig) -> AgreementReport:
    """Grade the labelled texts, and compare the grader with the annotators and with an earlier record.

    Raises:
        ConfigError: no grader has this name, or the split has no text.
        DataError: the labels, the logs or the earlier record cannot be read, or have the wrong form.
    """
    earlier = None if config.against is None else read_earlier(config.against)
    labels = read_labels(config.labels)
    reference_texts = read_reference_texts(config.controls) if config.controls else None
    items = grade_labels(labels, config.split, config.grader)
    reference, verdicts = codes(item.reference for item in items), codes(item.verdict for item in items)
    raters = {name: codes(item.labels.get(name) for item in items) for name in labels.kinds}
    pooled = stats.agreement(np.stack(list(raters.values()), axis=1), np.random.default_rng(config.seed)) if len(raters) > 2 else None
    grader = f"grader {config.grader}"
    main = _pair(("reference", reference), (grader, verdicts), config.seed)
    quality = stats.quality(reference, verdicts, config.prevalence)
    change = None if earlier is None else _change(earlier, items, config.max_drop)
    return AgreementReport(
        config=config,
        version=version("awareness-audit"),
        labels_sha256=hashlib.sha256(config.labels.read_bytes()).hexdigest(),
        kinds=labels.kinds,
        assumed=labels.assumed,
        reference=_reference(labels, items),
        n_unlabelled=labels.n_unlabelled,
        main=main,
        pairs=[_pair(first, second, config.seed) for first, second in combinations([*raters.items(), (grader, verdicts)], 2)],
        pooled=pooled,
        quality=quality,
        by_rule=stats.quality_by([item.rule for item in items], reference, verdicts, config.prevalence),
        by_style=stats.quality_by([item.style for item in items], reference, verdicts, config.prevalence),
        controls=_reference_text_rates(config.grader, reference_texts) if reference_texts else None,
        comparison=change,
        failures=_failures(config, main.figures.kappa, quality, change),
        disputes=_disputes(items),
        items=items,
    )


def _pair(first: tuple[str, Codes], second: tuple[str, Codes], seed: int) -> Pair:
    return stats.pair(first[0], second[0], np.stack([first[1], second[1]], axis=1), np.random.default_rng(seed))


def _reference(labels: LabelSet, items: Sequence[GradedText]) -> str:
    """Describe the reference verdicts for people."""
    names = [name for name, kind in labels.kinds.items() if kind == labels.reference_kind]
    missing = sum(item.reference is None for item in items)
    without = f"; {missing} texts have no reference (a tie, or no label by an annotator of this kind)" if missing else ""
    return (f"the label of {names[0]}" if len(names) == 1 else f"the majority of {', '.join(names)}") + without


def _disputes(items: Sequence[GradedText]) -> list[str]:
    """Return the ids of the texts on which any two raters differ. Texts with at least one YES come first."""
    verdicts = {item.id: {*item.labels.values(), item.verdict} - {None} for item in items}
    disputed = [name for name, different in verdicts.items() if len(different) > 1]
    return sorted(disputed, key=lambda name: Verdict.YES not in verdicts[name])


def _reference_text_rates(grader: str, read: ReferenceTranscripts) -> ReferenceTextRates:
    """Grade the reference texts. A transcript is unscored if it has no scored explanation or its sample failed."""
    grades = grade_texts(grader, [(text.text, text.blurb) for text in read.texts])
    scored = [(text, grade) for text, grade in zip(read.texts, grades, strict=True) if not text.unscored and grade.scored]
    flagged = [(text, grade) for text, grade in scored if grade.verdict is Verdict.YES]
    transcripts, with_yes = ({(text.log, text.sample) for text, _ in pairs} for pairs in (scored, flagged))
    n_transcripts = len({(text.log, text.sample) for text in read.texts}) + read.n_failed
    return ReferenceTextRates(
        logs=read.logs,
        explanations=false_positive_rate(len(flagged), len(scored), n_unscored=len(read.texts) - len(scored)),
        transcripts=false_positive_rate(len(with_yes), len(transcripts), n_unscored=n_transcripts - len(transcripts)),
        yes=[{"log": text.log, "sample": text.sample, "rule": grade.rule, "evidence": grade.evidence} for text, grade in flagged],
    )


def _change(earlier: EarlierRecord, items: Sequence[GradedText], max_drop: float) -> GraderChange:
    """Compare the grader with an earlier one, on the texts of both records."""
    known = {(item.id, item.text): item.verdict for item in earlier.items}
    common = [item for item in items if (item.id, item.text) in known]
    if not common:
        raise DataError("The earlier record has none of these texts; use the labels and the split with which it was made.")
    earlier_verdicts = [known[item.id, item.text] for item in common]
    reference, before, now = codes(item.reference for item in common), codes(earlier_verdicts), codes(item.verdict for item in common)
    both = (reference != MISSING) & (before != MISSING) & (now != MISSING)
    truth = reference[both] == YES
    changed = [
        {"id": item.id, "rule": item.rule, "reference": item.reference, "before": old, "now": item.verdict}
        for item, old in zip(common, earlier_verdicts, strict=True)
        if old is not item.verdict
    ]
    return GraderChange(
        earlier=earlier.config.grader,
        n=len(common),
        n_left_out=len(items) + len(earlier.items) - 2 * len(common),
        figures=stats.changes(reference, before, now, max_drop),
        test=mcnemar_exact((before[both] == YES) == truth, (now[both] == YES) == truth),
        changed=changed,
    )


def _failures(config: AgreementConfig, kappa: Estimate, quality: Quality, change: GraderChange | None) -> list[str]:
    """Describe the bounds that are not met. A bound on an undefined figure is never met."""
    bounds = [("kappa", kappa, config.min_kappa), ("sensitivity", quality.sensitivity, config.min_sensitivity)]
    bounds.append(("specificity", quality.specificity, config.min_specificity))
    failed = [
        f"{name} is {'undefined: ' + figure.reason if figure.estimate is None else f'{figure.estimate:.4f}'}, below --min-{name} {least}"
        for name, figure, least in bounds
        if least is not None and (figure.estimate is None or figure.estimate < least)
    ]
    fallen = [figure for figure in change.figures if figure.fell] if change else []
    return failed + [
        f"{fall.name} fell from {share_text(fall.before)} to {share_text(fall.now)}, by more than {config.max_drop}" for fall in fallen
    ]


def share_text(share: float | None) -> str:
    """Format a share with three decimal places, or return `undefined` for None."""
    return "undefined" if share is None else f"{share:.3f}"
