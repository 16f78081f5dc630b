"""From graded explanations to transcripts: counts, flags, the mean token rate and the any-of-k curve.

An explanation is that of one sampled token, nested in its transcript. A transcript is flagged when any of its scored
explanations is YES, so the share of flagged ones grows with the number of tokens: the curve shows what it would be with fewer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from audit.stats.rates import MISSING, NO, YES, Bounds, Codes, Estimate, Floats, column_means, mean, rate
from nla.support.errors import DataError


@dataclass(frozen=True)
class TokenCounts:
    """Explanations of each transcript: how many are YES, how many have a verdict (UNCLEAR and NO too) and how many have none."""

    yes: Codes
    scored: Codes
    unscored: Codes

    @property
    def flags(self) -> Codes:
        """Verdict of each transcript: YES if any explanation is, NO if none of the scored ones is, `MISSING` if none is scored."""
        return np.where(self.scored == 0, MISSING, np.where(self.yes > 0, YES, NO))


@dataclass(frozen=True)
class CurvePoint:
    """Share of transcripts flagged when k of their tokens are read."""

    k: int
    rate: Estimate
    n_short: int
    """Transcripts with fewer than k scored tokens, which count with all they have."""


def count_tokens(transcripts: Codes, verdicts: Codes, n_transcripts: int) -> TokenCounts:
    """Counts by transcript.

    Args:
        transcripts: of each explanation, the position of its transcript, 0 to n_transcripts - 1.
        verdicts: of each explanation, its verdict code.
        n_transcripts: number of transcripts; one without any explanation counts as unscored.

    Raises:
        DataError: a position is not that of a transcript.
    """
    if len(transcripts) and not 0 <= transcripts.min() <= transcripts.max() < n_transcripts:
        found = f"{transcripts.min()} to {transcripts.max()}"
        raise DataError(f"explanations name transcripts {found}, expected 0 to {n_transcripts - 1}; number the transcripts from 0.")
    parts = (verdicts == YES, verdicts != MISSING, verdicts == MISSING)
    return TokenCounts(*(np.bincount(transcripts[part], minlength=n_transcripts) for part in parts))


def chance_of_flag(counts: TokenCounts, ks: Sequence[int]) -> Floats:
    """Of each transcript (row) and k (column), the chance that a random k of its scored tokens hold a YES: 1 - C(n-y, k) / C(n, k).

    Exact, without sampling. A transcript with fewer than k tokens counts with all it has, as the measurement itself does
    (k = min(50, n)), which keeps every curve rising; one with no scored token is NaN.
    """
    if min(ks, default=1) < 1:
        raise DataError(f"k = {min(ks)} tokens cannot be read; ask for 1 or more.")
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
    """Expected share of flagged transcripts at each k, with the interval of `column_means`."""
    rates = column_means(chance_of_flag(counts, ks), clusters, judgements=int(counts.scored.sum()))
    short = np.searchsorted(np.sort(counts.scored[counts.scored > 0]), np.array(ks), side="left")
    return [CurvePoint(k, found, int(n)) for k, found, n in zip(ks, rates, short, strict=True)]


def token_rate(counts: TokenCounts, clusters: Codes | None = None) -> Estimate:
    """Mean over transcripts of the share of YES among their scored tokens; transcripts weigh alike, whatever their length."""
    shares = np.where(counts.scored > 0, counts.yes / np.maximum(counts.scored, 1), np.nan)
    return mean(shares, clusters, judgements=int(counts.scored.sum()))


def flag_bounds(counts: TokenCounts, clusters: Codes | None = None) -> Bounds:
    """The rate of flagged transcripts, and what it would be if every unscored explanation were NO, or YES.

    Tighter than treating a transcript as unknown: one with a YES stays flagged whatever its unscored explanations are.
    """
    could_be = (counts.yes > 0) | (counts.unscored > 0) | (counts.scored == 0)
    all_no, all_yes = (np.where(flagged, YES, NO) for flagged in (counts.yes > 0, could_be))
    return Bounds(rate(counts.flags, clusters), rate(all_no, clusters), rate(all_yes, clusters))
