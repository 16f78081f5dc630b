"""Correction of a rate for the grader's errors, from its measured sensitivity and specificity."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from audit.stats.bootstrap import percentile_interval
from audit.stats.rates import ALPHA, Estimate, wilson
from nla.support.errors import DataError

DRAWS = 4000
_Z = float(norm.ppf(1 - ALPHA / 2))


@dataclass(frozen=True)
class GraderError:
    """A grader's measured errors: `hits` of `n_yes` texts that are YES, `false_alarms` of `n_other` texts that are not."""

    hits: int
    n_yes: int
    false_alarms: int
    n_other: int

    def __post_init__(self) -> None:
        if not 0 <= self.hits <= self.n_yes or not 0 <= self.false_alarms <= self.n_other:
            raise DataError(f"{self} has more hits or false alarms than texts: expected counts of one set of labelled texts.")


@dataclass(frozen=True)
class Corrected:
    """A rate corrected for grader error, with two intervals; average, test and pool the untruncated estimate."""

    delta: Estimate
    """Untruncated estimate (it may lie outside 0 to 1) with its delta-method interval."""
    bootstrap: Estimate
    """The same estimate with its bootstrap interval."""
    shown: Estimate
    """The delta estimate and interval clipped to 0 to 1, for tables."""


def corrected(rate: float, n_effective: float, error: GraderError, rng: np.random.Generator, *, draws: int = DRAWS) -> Corrected:
    """Rogan and Gladen's (1978) estimate (rate + specificity - 1) / (sensitivity + specificity - 1).

    Args:
        rate: observed share of YES, of explanations or of transcripts, as the errors were measured.
        n_effective: independent items behind it (`effective_sizes`).
        error: measured on texts that the rate does not rest on.
        rng: draws the bootstrap.
        draws: bootstrap draws.

    Both intervals carry the uncertainty of the rate and of the grader's two figures. The delta interval is that of Lang and
    Reiczigel (2014), whose added pseudo-counts keep a grader without an observed error from looking certain. For the same reason
    the bootstrap is parametric, from Jeffreys posteriors of the three shares: resampling 0 errors in 50 gives 0 every time.
    """
    n = round(n_effective)
    reason = _unusable(error, n)
    if reason:
        none = Estimate(None, None, None, n, "Rogan-Gladen", reason=reason)
        return Corrected(none, none, none)
    estimate = _rogan_gladen(rate, error.hits / error.n_yes, error.false_alarms / error.n_other)
    low, high = _lang_reiczigel(rate, n_effective, error)
    method = "Rogan-Gladen, delta (Lang-Reiczigel)"
    ends = _drawn(rate, n_effective, error, rng, draws)
    return Corrected(
        Estimate(estimate, low, high, n, method),
        Estimate(estimate, *ends, n, "Rogan-Gladen, parametric bootstrap"),
        Estimate(_cut(estimate), _cut(low), _cut(high), n, f"{method}, cut to 0 to 1"),
    )


def _cut(share: float) -> float:
    return min(max(share, 0.0), 1.0)


def _rogan_gladen(rate: float, sensitivity: float, false_alarm: float) -> float:
    return (rate - false_alarm) / (sensitivity - false_alarm)


def _unusable(error: GraderError, n: int) -> str:
    if not n:
        return "nothing was scored"
    if not error.n_yes or not error.n_other:
        return "the grader's errors need labelled texts with and without YES"
    found, other = wilson(error.hits, error.n_yes), wilson(error.false_alarms, error.n_other)
    if (found.low or 0) <= (other.high or 0):
        return "the grader is not shown to say YES more often where it is right, so its errors cannot be corrected"
    return ""


def _lang_reiczigel(rate: float, n: float, error: GraderError) -> tuple[float, float]:
    """Interval with z^2 pseudo-items on the rate, two on each grader figure, and the matching shift of its middle."""
    observed, size = (n * rate + _Z**2 / 2) / (n + _Z**2), n + _Z**2
    sensitivity, n_yes = (error.hits + 1) / (error.n_yes + 2), error.n_yes + 2
    false_alarm, n_other = (error.false_alarms + 1) / (error.n_other + 2), error.n_other + 2
    slope = sensitivity - false_alarm
    middle = (observed - false_alarm) / slope
    of_hits = sensitivity * (1 - sensitivity) / n_yes
    of_alarms = false_alarm * (1 - false_alarm) / n_other
    shift = 2 * _Z**2 * (middle * of_hits - (1 - middle) * of_alarms)
    variance = (observed * (1 - observed) / size + middle**2 * of_hits + (1 - middle) ** 2 * of_alarms) / slope**2
    half = _Z * variance**0.5
    return middle + shift - half, middle + shift + half


def _drawn(rate: float, n: float, error: GraderError, rng: np.random.Generator, draws: int) -> tuple[float, float]:
    counts = ((rate * n, n), (error.hits, error.n_yes), (error.false_alarms, error.n_other))
    observed, sensitivity, false_alarm = (rng.beta(yes + 0.5, size - yes + 0.5, draws) for yes, size in counts)
    slope = sensitivity - false_alarm
    usable = slope > 0
    return percentile_interval((observed - false_alarm)[usable] / slope[usable])
