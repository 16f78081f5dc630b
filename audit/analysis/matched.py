"""Matched partners for benchmark transcripts among the deployment transcripts: by the length of the response, and by the prompt's topic.

A measure may separate a benchmark from deployment traffic because its responses are shorter or its prompts about other things. Against
partners of the same length or topic, that reason is gone as far as partners exist. The partners do not depend on the measure.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from audit.stats.matching import matched_pairs
from audit.stats.rates import Codes, Floats
from nla.support.seeds import seeded_generator

FEWEST_PAIRS = 10
"""With fewer pairs there is no matched AUROC."""
LONGEST_RATIO = 1.25
"""A partner by length has at most this many times the response tokens, and at least the inverse."""


@dataclass(frozen=True, eq=False)
class Partners:
    """Pairs of benchmark and deployment transcripts, as rows of the table; both are empty where there is a reason."""

    benchmark: Codes
    deployment: Codes
    closeness: float | None
    """See `MatchedAuroc`."""
    n_without: int
    reason: str = ""


def partners(table: pd.DataFrame, benchmark: Codes, deployment: Codes, seed: int) -> dict[str, Partners]:
    """Return the partners of some benchmark transcripts by `length` and by `topic`.

    Args:
        table: the table of transcripts, rows numbered from 0. Tables of earlier versions lack the columns that are compared.
        benchmark: rows of the benchmark's transcripts.
        deployment: rows of the deployment transcripts, each of which is the partner of at most one.
        seed: of the order by which ties are broken.
    """
    ways = {"length": ("n_response_tokens", _by_length), "topic": ("prompt", _by_topic)}
    pairs = {}
    for way, (column, compare) in ways.items():
        known = table[column].notna().to_numpy() if column in table else np.zeros(len(table), dtype=bool)
        first, second = benchmark[known[benchmark]], deployment[known[deployment]]
        if not len(first) or not len(second):
            pairs[way] = Partners(first[:0], second[:0], None, len(benchmark), f"the transcripts have no column {column}")
            continue
        distances, limit = compare(table[column].iloc[first], table[column].iloc[second])
        rows, columns = matched_pairs(distances, limit, seeded_generator("partners", seed, way))
        pairs[way] = _partners(way, first[rows], second[columns], distances[rows, columns], len(benchmark))
    return pairs


def _partners(way: str, benchmark: Codes, deployment: Codes, distances: Floats, n: int) -> Partners:
    if len(benchmark) < FEWEST_PAIRS:
        reason = f"{len(benchmark)} of {n} transcripts have a deployment partner of similar {way}; expected at least {FEWEST_PAIRS}"
        return Partners(benchmark[:0], deployment[:0], None, n - len(benchmark), reason)
    closeness = float(np.median(np.exp(-distances) if way == "length" else 1 - distances))
    return Partners(benchmark, deployment, closeness, n - len(benchmark))


def _by_length(benchmark: pd.Series, deployment: pd.Series) -> tuple[Floats, float]:
    """Return the distances of log lengths, shape (benchmark, deployment), and the largest that is allowed."""
    first, second = (np.log(np.maximum(column.to_numpy(np.float64), 1)) for column in (benchmark, deployment))
    return np.abs(first[:, None] - second[None, :]), float(np.log(LONGEST_RATIO)) + 1e-9


def _by_topic(benchmark: pd.Series, deployment: pd.Series) -> tuple[Floats, float]:
    """Return one minus the cosine of tf-idf vectors; prompts that share no word are no partners."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = [str(text) for text in (*benchmark, *deployment)]
    try:
        vectors = TfidfVectorizer(sublinear_tf=True, stop_words="english").fit_transform(texts)
    except ValueError:  # no prompt has a word
        return np.full((len(benchmark), len(deployment)), np.inf), 0.0
    cosines = (vectors[: len(benchmark)] @ vectors[len(benchmark) :].T).toarray()
    return np.where(cosines > 0, np.maximum(1 - cosines, 0.0), np.inf), 1.0
