"""How far the four measures agree on the same transcripts, and whether each of them separates the positive control."""

from itertools import combinations

import numpy as np
import pandas as pd

from audit.analysis.measure_results import AssaySensitivity, Consistency, MeasurePair
from audit.analysis.measure_scores import MAIN, ScoredTranscripts
from audit.analysis.measure_words import FEWEST_ITEMS, assay_sentence, separates
from audit.config import BASE, POSITIVE
from audit.stats.auroc import Group, auroc_of_groups, auroc_of_pairs
from audit.stats.bootstrap import undefined
from audit.stats.correlation import correlation
from audit.stats.rates import Codes, Estimate


def consistency(scored: ScoredTranscripts) -> Consistency:
    """Return the agreement of the main measures on the transcripts of the base condition, deployment controls included."""
    base = np.flatnonzero((scored.table.condition == BASE).to_numpy())
    have = [measure for measure in MAIN if measure in scored.scores]
    pairs = [_pair(scored, first, second, base) for first, second in combinations(have, 2)]
    against = {measure: _against_verbalized(scored, measure, base) for measure in have if measure != "verbalized" and "verbalized" in have}
    return Consistency(pairs, against)


def _pair(scored: ScoredTranscripts, first: str, second: str, base: Codes) -> MeasurePair:
    rows = scored.scored(second, scored.scored(first, base))
    a, b, items = scored.scores[first][rows], scored.scores[second][rows], scored.items[rows]
    tasks = pd.factorize(scored.table.task.iloc[rows])[0].astype(np.int64)
    return MeasurePair(
        first=first,
        second=second,
        n=len(rows),
        pearson=correlation(a, b, items, "pearson"),
        spearman=correlation(a, b, items, "spearman"),
        pearson_within=correlation(a, b, items, "pearson", tasks),
        spearman_within=correlation(a, b, items, "spearman", tasks),
    )


def _against_verbalized(scored: ScoredTranscripts, measure: str, base: Codes) -> Estimate:
    rows = scored.scored("verbalized", scored.scored(measure, base))
    says = scored.scores["verbalized"][rows] == 1
    if says.all() or not says.any():
        who = "every" if len(rows) and says.all() else "no"
        return undefined(len(rows), f"{who} transcript says that it is an evaluation")
    said, silent = (Group(scored.scores[measure][part], scored.items[part]) for part in (rows[says], rows[~says]))
    return auroc_of_groups(said, silent)


def assay_sensitivity(scored: ScoredTranscripts) -> dict[str, AssaySensitivity]:
    """Return for each measure whether it separates the positive control from the same items without it, over all tasks that ran both."""
    first, second = _paired_rows(scored.table)
    tasks = scored.table.task.to_numpy()[first]
    return {measure: _assay(scored, measure, first, second, tasks) for measure in scored.scores}


def _paired_rows(table: pd.DataFrame) -> tuple[Codes, Codes]:
    """Return the rows of the positive control, and those of the same task, item and epoch in the base condition."""
    numbered = table.assign(row=np.arange(len(table)))[["task", "sample_id", "epoch", "condition", "row"]]
    stated, base = (numbered[numbered.condition == condition] for condition in (POSITIVE, BASE))
    both = stated.merge(base, on=["task", "sample_id", "epoch"], suffixes=("", "_base"))
    return both.row.to_numpy(np.int64), both.row_base.to_numpy(np.int64)


def _assay(scored: ScoredTranscripts, measure: str, stated: Codes, base: Codes, tasks: np.ndarray) -> AssaySensitivity:
    scores, items = scored.scores[measure], scored.items
    both = ~np.isnan(scores[stated]) & ~np.isnan(scores[base])

    def auroc_over(pairs: np.ndarray) -> Estimate:
        rows, partners = stated[pairs], base[pairs]
        return auroc_of_pairs(Group(scores[rows], items[rows]), Group(scores[partners], items[rows]))

    overall = auroc_over(both)
    n_items = len(np.unique(items[stated[both]]))
    return AssaySensitivity(
        auroc=overall,
        by_task={str(task): auroc_over(both & (tasks == task)) for task in dict.fromkeys(tasks)},
        separates=separates(overall) and n_items >= FEWEST_ITEMS,
        sentence=assay_sentence(overall, n_items, bool(len(stated)), scored.reasons.get(measure, "")),
        n_items=n_items,
    )
