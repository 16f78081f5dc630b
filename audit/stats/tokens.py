"""From graded explanations to transcripts: counts, flags, the mean per-token rate and the any-of-k curve.

Each explanation belongs to one sampled token, and the tokens are nested in transcripts. A transcript is flagged if any of its scored
explanations is YES, so the share of flagged transcripts grows with the number of tokens read. The curve shows this share for
smaller numbers of tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from audit.stats.rates import MISSING, NO, YES, Codes, Estimate, Floats, column_means, mean
from nla.support.errors import DataError


@dataclass(frozen=True)
class TokenCounts:
    """Explanations per transcript: how many are YES, how many have any verdict (YES, UNCLEAR or NO), and how many have none."""

    yes: Codes
    scored: Codes
    unscored: Codes

    @property
    def flags(self) -> Codes:
        """Verdict code of each transcript: YES if any explanation is YES, `MISSING` if none was scored, otherwise NO."""
        return np.where(self.scored == 0, MISSING, np.where(self.yes > 0, YES, NO))


@dataclass(frozen=True)
class CurvePoint:
    """Expected share of transcripts flagged when k of their tokens are read."""

    k: int
    rate: Estimate
    n_short: int
    """Transcripts with fewer than k scored tokens; all their scored tokens are used."""


def chance_of_flag(counts: TokenCounts, ks: Sequence[int]) -> Floats:
    """Return the probability that k random scored tokens of a transcript include a YES: 1 - C(n - y, k) / C(n, k), shape (transcript, k).

    n is the number of the transcript's scored tokens, and y the number of those that are YES. The formula is exact; nothing is sampled.
    If n is below k, all n tokens are used, as in the measurement itself, so the curve never falls as k grows. A transcript without any
    scored token gives NaN.

    Raises:
        DataError: a k below 1.
    """
    if min(ks, default=1) < 1:
        raise DataError(f"Invalid number of tokens {min(ks)}: expected at least 1.")
    width = int(counts.scored.max(initial=0)) + 1
    pairs, index = np.unique(counts.scored * width + counts.yes, return_inverse=True)
    scored, yes = (part[:, None] for part in np.divmod(pairs, width))
    drawn = np.arange(max(ks, default=1))
    left = np.maximum(scored - drawn, 1)
    missed = np.where(drawn < scored, np.maximum(scored - yes - drawn, 0) / left, 1.0).astype(np.float64)
    table = np.asarray(1 - np.cumprod(missed, axis=1), dtype=np.float64)
    table[scored[:, 0] == 0] = np.nan
    chances: Floats = table[:, np.array(ks, dtype=np.int64) - 1][index]
    return chances


def any_of_k_curve(counts: TokenCounts, clusters: Codes | None = None, ks: Sequence[int] = range(1, 51)) -> list[CurvePoint]:
    """Return the expected share of flagged transcripts for each k, with the interval of `column_means`."""
    rates = column_means(chance_of_flag(counts, ks), clusters, judgements=int(counts.scored.sum()))
    short = np.searchsorted(np.sort(counts.scored[counts.scored > 0]), np.array(ks), side="left")
    return [CurvePoint(k, share, int(n)) for k, share, n in zip(ks, rates, short, strict=True)]


def token_rate(counts: TokenCounts, clusters: Codes | None = None) -> Estimate:
    """Return the mean over transcripts of the share of YES among their scored tokens.

    Every transcript has the same weight, whatever its number of tokens.
    """
    shares = np.where(counts.scored > 0, counts.yes / np.maximum(counts.scored, 1), np.nan)
    return mean(shares, clusters, judgements=int(counts.scored.sum()))
