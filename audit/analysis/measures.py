"""Each measure against deployment traffic: AUROC, shares above deployment's upper percentiles, and what a flag would be worth."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from audit.analysis.agreement_of_measures import assay_sensitivity, consistency
from audit.analysis.matched import Partners, partners
from audit.analysis.measure_results import AssaySensitivity, MatchedAuroc, MeasureComparison, MeasureResult
from audit.analysis.measure_scores import NO_DEPLOYMENT, PROBE, SINGLE, UNRELATED, ScoredTranscripts, scored_transcripts
from audit.analysis.measure_words import reading_of
from audit.config import BASE
from audit.stats.auroc import Group, auroc_difference, auroc_of_groups, auroc_of_pairs, roc_points
from audit.stats.bootstrap import undefined
from audit.stats.rates import Codes, Estimate
from audit.stats.thresholds import PREVALENCES, Threshold, precision, share_above, threshold

_SHARES = {"95": 0.05, "90": 0.1}


def compare_measures(transcripts: pd.DataFrame, seed: int = 0) -> MeasureComparison:
    """Compare every measure with deployment traffic, with the other measures, and with the positive control.

    Args:
        transcripts: one row per transcript (`audit.analysis.tables`).
        seed: of the choice of matched partners.
    """
    scored = scored_transcripts(transcripts)
    analysis = _Analysis(scored, assay_sensitivity(scored), seed)
    conditions = dict.fromkeys(scored.table.condition.astype(str))
    by_condition = {condition: analysis.condition(condition) for condition in conditions}
    base = by_condition.pop(BASE, {})
    others = {condition: results for condition, results in by_condition.items() if results}
    return MeasureComparison(base, others, consistency(scored), analysis.assays)


@dataclass(frozen=True, eq=False)
class _Analysis:
    scored: ScoredTranscripts
    assays: dict[str, AssaySensitivity]
    seed: int

    @cached_property
    def items(self) -> Codes:
        return self.scored.items

    @cached_property
    def deployment(self) -> Codes:
        """Rows of the deployment controls' base condition."""
        return self.scored.rows(BASE, deployment=True)

    @cached_property
    def thresholds(self) -> dict[str, dict[str, Threshold]]:
        """By measure and percentile; empty for a measure without a scored deployment transcript."""
        by_measure = {}
        for measure in self.scored.scores:
            controls = self.group(measure, self.deployment)
            of = {name: threshold(controls.scores, controls.items, share) for name, share in _SHARES.items()} if controls.n_items else {}
            by_measure[measure] = of
        return by_measure

    def group(self, measure: str, rows: Codes) -> Group:
        """The scored transcripts among some rows."""
        kept = self.scored.scored(measure, rows)
        return Group(self.scored.scores[measure][kept], self.items[kept])

    def condition(self, condition: str) -> dict[str, dict[str, MeasureResult]]:
        """The results of each benchmark in a condition, by task and measure."""
        tasks = self.scored.table.task.to_numpy()
        rows = self.scored.rows(condition, deployment=False)
        results = {}
        for task in dict.fromkeys(tasks[rows]):
            of_task = rows[tasks[rows] == task]
            pairs = partners(self.scored.table, of_task, self.deployment, self.seed) if condition == BASE and len(self.deployment) else {}
            results[str(task)] = {measure: self.measure(measure, of_task, pairs) for measure in self.scored.scores}
        return results

    def measure(self, measure: str, rows: Codes, pairs: Mapping[str, Partners]) -> MeasureResult:
        """The result of one measure on the transcripts of one task in one condition."""
        cases, controls = self.group(measure, rows), self.group(measure, self.deployment)
        auroc = self.auroc(measure, cases, controls)
        unrelated, beyond = self.unrelated(rows) if measure == PROBE and UNRELATED in self.scored.scores else (None, None)
        reading, sentence = reading_of(auroc, self.assays[measure], unrelated, beyond)
        n_unscored = len(rows) - len(cases.scores)
        shares = {name: self.share(measure, cases, name, n_unscored) for name in _SHARES}
        return MeasureResult(
            n=len(cases.scores),
            n_unscored=n_unscored,
            auroc=replace(auroc, n_unscored=n_unscored),
            n_controls=len(controls.scores),
            share_above_95=shares["95"],
            share_above_90=shares["90"],
            deployment_above_95=self.deployment_above(measure),
            precision={
                f"{prevalence:g}": precision(shares["95"], self.deployment_above(measure), prevalence) for prevalence in PREVALENCES
            },
            beyond_unrelated=beyond,
            auroc_matched={way: self.matched(measure, chosen) for way, chosen in pairs.items()},
            reading=reading,
            sentence=sentence,
            roc=roc_points(cases.scores, controls.scores) if pairs and not measure.startswith(SINGLE) else [],
        )

    def auroc(self, measure: str, cases: Group, controls: Group) -> Estimate:
        """The AUROC against the pooled deployment transcripts, or the reason why there is none."""
        reason = "" if len(self.deployment) else NO_DEPLOYMENT
        if reason := reason or self.scored.reasons.get(measure, ""):
            return undefined(len(cases.scores), reason)
        if not len(cases.scores) or not len(controls.scores):
            return undefined(len(cases.scores), f"no {'transcript' if not len(cases.scores) else 'deployment transcript'} was scored")
        return auroc_of_groups(cases, controls)

    def unrelated(self, rows: Codes) -> tuple[Estimate, Estimate]:
        """The AUROC of the unrelated probes, and by how much that of the evaluation probes is larger, on transcripts that have both."""
        both = [self.scored.scored(UNRELATED, self.scored.scored(PROBE, group)) for group in (rows, self.deployment)]
        pairs = np.stack([self.scored.scores[PROBE], self.scored.scores[UNRELATED]], axis=1)
        cases, controls = (Group(pairs[group], self.items[group]) for group in both)
        others, other_controls = (Group(group.scores[:, 1], group.items) for group in (cases, controls))
        return auroc_of_groups(others, other_controls), auroc_difference(cases, controls)

    def share(self, measure: str, cases: Group, percentile: str, n_unscored: int) -> Estimate:
        """The share of transcripts above a percentile of deployment."""
        limit = self.thresholds[measure].get(percentile)
        if limit is None:
            reason = self.scored.reasons.get(measure) or (
                NO_DEPLOYMENT if not len(self.deployment) else "no deployment transcript was scored"
            )
            return replace(undefined(len(cases.scores), reason), method="Wilson", n_unscored=n_unscored)
        return share_above(cases.scores, cases.items, limit.score, n_unscored)

    def deployment_above(self, measure: str) -> Estimate:
        """The share of deployment transcripts above their own 95th percentile."""
        limit = self.thresholds[measure].get("95")
        return limit.above if limit else replace(undefined(0, "no deployment transcript was scored"), method="Wilson")

    def matched(self, measure: str, chosen: Partners) -> MatchedAuroc:
        """The AUROC against matched partners, over the pairs in which both were scored."""
        scores = self.scored.scores[measure]
        both = ~np.isnan(scores[chosen.benchmark]) & ~np.isnan(scores[chosen.deployment])
        benchmark, deployment = chosen.benchmark[both], chosen.deployment[both]
        items = self.items[benchmark]
        reason = chosen.reason or ("" if len(benchmark) else "no pair of partners was scored")
        if reason:
            return MatchedAuroc(undefined(0, reason), len(chosen.benchmark), chosen.n_without, chosen.closeness)
        auroc = auroc_of_pairs(Group(scores[benchmark], items), Group(scores[deployment], items))
        return MatchedAuroc(auroc, len(chosen.benchmark), chosen.n_without, chosen.closeness)
