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
    """A grader's measured errors: it said YES on `hits` of `n_yes` texts labelled YES and on `false_alarms` of `n_other` other texts."""

    hits: int
    n_yes: int
    false_alarms: int
    n_other: int

    def __post_init__(self) -> None:
        if not 0 <= self.hits <= self.n_yes or not 0 <= self.false_alarms <= self.n_other:
            raise DataError(
                f"{self} has more hits or false alarms than texts: expected counts from one set of labelled texts; "
                "measure the grader's errors again."
            )


@dataclass(frozen=True)
class Corrected:
    """A rate corrected for grader error, with two intervals. Use the untruncated estimate for averages, tests and pooling."""

    delta: Estimate
    """Untruncated estimate (it may lie outside 0 to 1) with its delta-method interval."""
    bootstrap: Estimate
    """The same estimate with its bootstrap interval."""
    shown: Estimate
    """The delta estimate and interval clipped to 0 to 1, for tables."""


def corrected(rate: float, n_effective: float, error: GraderError, rng: np.random.Generator, *, draws: int = DRAWS) -> Corrected:
    """Return Rogan and Gladen's (1978) estimate, (rate + specificity - 1) / (sensitivity + specificity - 1), with two intervals.

    Args:
        rate: observed share of YES, among explanations if the errors were measured on explanations, else among transcripts.
        n_effective: number of independent items that the rate is based on (`effective_sizes`).
        error: the grader's errors, measured on other texts than those of the rate.
        rng: draws the bootstrap.
        draws: number of bootstrap draws.

    Both intervals include the uncertainty of the rate and of the grader's sensitivity and specificity. The delta interval is that of
    Lang and Reiczigel (2014); its pseudo-counts prevent a grader without an observed error from being treated as free of errors. For the
    same reason the bootstrap is parametric and draws the three shares from their Jeffreys posteriors: resampling a sample with 0 errors
    in 50 would give 0 errors in every draw.
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
        Estimate(_clipped(estimate), _clipped(low), _clipped(high), n, f"{method}, clipped to 0 to 1"),
    )


def _clipped(share: float) -> float:
    return min(max(share, 0.0), 1.0)


def _rogan_gladen(rate: float, sensitivity: float, false_alarm: float) -> float:
    return (rate - false_alarm) / (sensitivity - false_alarm)


def _unusable(error: GraderError, n: int) -> str:
    if not n:
        return "nothing was scored"
    if not error.n_yes or not error.n_other:
        return "the grader's errors must be measured on texts labelled YES and on texts labelled otherwise"
    sensitivity, false_alarm = wilson(error.hits, error.n_yes), wilson(error.false_alarms, error.n_other)
    if (sensitivity.low or 0) <= (false_alarm.high or 0):
        return "the grader's sensitivity is not clearly above its false positive rate, so the rate cannot be corrected for its errors"
    return ""


def _lang_reiczigel(rate: float, n: float, error: GraderError) -> tuple[float, float]:
    """Return the interval: z^2 pseudo-items are added to the rate, two to each of the grader's shares, and the centre is shifted."""
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
