"""The strength at which a direction degrades responses as much as another one does: a search with few measurements."""

from collections.abc import Callable

from audit.controls.sweep_record import SweepPoint

LEAST_LOSS = 0.01
"""Degradation (nats per token) below which there is nothing to match."""
CLOSE = 0.1
"""A strength matches if its degradation differs from the target by at most this share of it."""
MOST_MEASURED = 5
"""Measurements per direction, at most."""
_STEP, _MOST_TIMES = 1.6, 8.0
"""The strength grows by this factor at least, up to so many times that of the target."""


def match(loss_at: Callable[[float], float], target: SweepPoint) -> tuple[float | None, str]:
    """Return the strength whose degradation equals the target's, or None and why there is none.

    Args:
        loss_at: measures the degradation (nats per token) at a strength.
        target: strength and degradation of the steering vector. The strengths tried have its sign, and start at its strength.

    The degradation is taken to rise with the strength: it is bracketed, and interpolated between the two nearest strengths measured.
    """
    if target.loss < LEAST_LOSS:
        return None, f"a loss below {LEAST_LOSS:g} nats per token is too small to be matched"
    low, high = (0.0, 0.0), None
    strength, most = target.strength, abs(target.strength) * _MOST_TIMES
    for _ in range(MOST_MEASURED):
        loss = loss_at(strength)
        if abs(loss - target.loss) <= CLOSE * target.loss:
            return strength, ""
        if loss < target.loss:
            if abs(strength) >= abs(low[0]):
                low = strength, loss
            if high is None and abs(strength) >= most:
                return None, f"even {strength:+g} degrades less than {target.loss:.2f} nats per token"
        else:
            high = strength, loss
        strength = _next(low, high, target.loss, most)
    return (None, f"no strength up to {low[0]:+g} degrades by {target.loss:.2f} nats per token") if high is None else (strength, "")


def _next(low: tuple[float, float], high: tuple[float, float] | None, wanted: float, most: float) -> float:
    """Return the next strength to try: between the bracket's ends, by linear interpolation, or beyond its lower end."""
    if high is None:
        grown = low[0] * min(max(_STEP, wanted / low[1] if low[1] > 0 else 2.5), 2.5)
        return _rounded(min(abs(grown), most) * (1 if grown > 0 else -1))
    share = min(max((wanted - low[1]) / (high[1] - low[1]), 0.1), 0.9)
    return _rounded(low[0] + share * (high[0] - low[0]))


def _rounded(strength: float) -> float:
    """Round to three digits, so that names and specifications of conditions stay short."""
    return float(f"{strength:.3g}")
