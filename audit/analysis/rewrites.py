"""Effect of realism rewrites on the flagged rate, paired with the original prompts and compared with a neutral paraphrase."""

import numpy as np
import pandas as pd

from audit.analysis.result import RewriteEffect
from audit.analysis.samples import sample_numbers
from audit.analysis.tables import codes_of
from audit.config import BASE
from audit.stats.bootstrap import bootstrap_mean
from audit.stats.paired import AgainstParaphrase, SignTest, against_paraphrase, paired, sign_test
from audit.stats.rates import MISSING, rate
from nla.support.seeds import seeded_generator

REALISTIC, PARAPHRASE = "realistic", "paraphrase"
_KEY = ["sample_id", "epoch"]


def rewrite_effects(transcripts: pd.DataFrame) -> list[RewriteEffect]:
    """The effect of each framing of each task that was run in the base condition too."""
    effects = []
    for task, table in transcripts.groupby("task", sort=False):
        base = table[table.condition == BASE]
        for framing, framed in table[table.framing != ""].groupby("framing", sort=False):
            both = base.merge(framed, on=_KEY, suffixes=("", "_new"))
            if len(both):
                effects.append(_effect(str(task), str(framing), both, table, len(base)))
    return effects


def _effect(task: str, framing: str, both: pd.DataFrame, table: pd.DataFrame, n_base: int) -> RewriteEffect:
    items = sample_numbers(both)
    before, after = codes_of(both.internal), codes_of(both.internal_new)
    kept = (before != MISSING) & (after != MISSING)
    change = (both.own_score_new - both.own_score).to_numpy(np.float64, na_value=np.nan)
    scored = np.isfinite(change)
    return RewriteEffect(
        task=task,
        framing=framing,
        pairs=paired(before, after, items),
        verbalized=paired(codes_of(both.verbalized), codes_of(both.verbalized_new), items),
        own_score_change=bootstrap_mean(change[scored], seeded_generator("own score", task, framing), items[scored]),
        n_without_rewrite=n_base - len(both),
        beyond=_beyond(task, both, table) if framing == REALISTIC else None,
        original=rate(before[kept], items[kept]),
        rewritten=rate(after[kept], items[kept]),
    )


def _beyond(task: str, both: pd.DataFrame, table: pd.DataFrame) -> AgainstParaphrase | None:
    neutral = table[table.framing == PARAPHRASE][[*_KEY, "internal"]].rename(columns={"internal": "internal_neutral"})
    three = both.merge(neutral, on=_KEY)
    if not len(three):
        return None
    original, new, other = (codes_of(three[name]) for name in ("internal", "internal_new", "internal_neutral"))
    return against_paraphrase(original, new, other, seeded_generator("paraphrase", task), sample_numbers(three))


def signs(effects: list[RewriteEffect]) -> dict[str, SignTest]:
    """Per framing, how many benchmarks were flagged less often after the rewrite, as is predicted of realistic ones."""
    tests = {}
    for framing in dict.fromkeys(effect.framing for effect in effects):
        changes = [-(e.pairs.difference.estimate or 0.0) for e in effects if e.framing == framing and e.pairs.n]
        tests[framing] = sign_test(np.array(changes))
    return tests
