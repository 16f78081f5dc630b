"""Planning: what n transcripts can detect, and how many transcripts an effect needs; exact, for the tests that the audit uses."""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

from audit.stats.exact import region
from audit.stats.rates import ALPHA, Codes, Floats, wilson
from nla.support.errors import ConfigError

POWER = 0.8
_STEPS = 14
"""Halvings of an interval of rates: to within 0.0001."""


@dataclass(frozen=True)
class Limits:
    """What n transcripts can detect against a floor."""

    n: int
    n_controls: int | None
    """Control transcripts behind the floor; None: the floor is fixed."""
    floor: float
    none_flagged_high: float
    """Upper end of the 95 % interval where no transcript is flagged (Wilson)."""
    fewest_flagged: int
    """Fewest flagged ones that are significantly above the floor (over a measured floor: with the controls at their expected count)."""
    detectable_rate: float | None
    """Lowest rate that is found above the floor with the wanted power; None: even a rate of 1 is not."""
    power: float
    alpha: float


def power_over(floor: float, rate: float, n: int, n_controls: int | None = None, *, alpha: float = ALPHA) -> float:
    """Chance that a benchmark of true rate `rate` is found above the floor, one-sided, by the tests of `audit.stats.floor`.

    Args:
        floor: true rate of the controls, or the fixed floor.
        rate: true rate of the benchmark.
        n: independent transcripts of the benchmark.
        n_controls: transcripts of the controls; None for a fixed floor.
        alpha: level; for Holm's correction over m benchmarks, 0.05 / m plans for the hardest one.
    """
    _check(floor, rate, alpha)
    if n_controls is not None:
        return region(n, n_controls, alpha).power(rate, floor)
    return float(_fixed_power(np.array([n]), floor, rate, alpha)[0])


def _check(*shares: float) -> None:
    if not all(0 <= share <= 1 for share in shares):
        raise ConfigError(f"Invalid rates or level {shares}: expected numbers from 0 to 1.")


def _fixed_power(n: Codes, floor: float, rate: float, alpha: float) -> Floats:
    """Power of the exact binomial test at each n."""
    power: Floats = binom.sf(_fixed_critical(n, floor, alpha) - 1, n, rate)
    return power


def _fixed_critical(n: Codes, floor: float, alpha: float) -> Codes:
    """Fewest successes of each n that are significantly many at a rate of `floor`."""
    least = binom.isf(alpha, n, floor).astype(np.int64)  # smallest x with sf(x) <= alpha, so x + 1 and more reject
    critical: Codes = np.maximum(least + 1, 1)
    return critical


def limits(floor: float, n: int, n_controls: int | None = None, *, power: float = POWER, alpha: float = ALPHA) -> Limits:
    """What n transcripts can show; see `power_over` for the arguments."""
    _check(floor, power, alpha)
    if n_controls is None:
        fewest = int(_fixed_critical(np.array([n]), floor, alpha)[0])
    else:
        fewest = int(region(n, n_controls, alpha).critical[round(floor * n_controls)])
    found = _lowest(lambda rate: power_over(floor, rate, n, n_controls, alpha=alpha) >= power, floor)
    return Limits(n, n_controls, floor, wilson(0, n).high or 1.0, fewest, found, power, alpha)


def _lowest(enough: Callable[[float], bool], low: float) -> float | None:
    """Lowest rate above `low` that is enough, given that every higher one is too."""
    if not enough(1.0):
        return None
    grid = np.linspace(low, 1, 2**_STEPS + 1)
    return float(grid[bisect_left(range(len(grid)), True, key=lambda i: enough(float(grid[i])))])


def transcripts_needed(
    floor: float, rate: float, *, controls_each: float | None = None, power: float = POWER, alpha: float = ALPHA, most: int = 20_000
) -> int | None:
    """Fewest transcripts at which, and at every larger number up to `most`, a rate is found above the floor with the wanted power.

    Args:
        floor, rate, power, alpha: see `power_over`.
        controls_each: control transcripts for each transcript of the benchmark; None for a fixed floor.
        most: largest number tried.

    Returns:
        None if `most` are too few. Exact power goes up and down by a little as n grows; for a measured floor, where it does so
        least, the number is found by bisection and may be off by the width of one such tooth.
    """
    _check(floor, rate, power, alpha)
    if controls_each is None:
        short = np.flatnonzero(_fixed_power(np.arange(1, most + 1), floor, rate, alpha) < power)
        return None if len(short) == most or (len(short) and short[-1] == most - 1) else int(short[-1]) + 2 if len(short) else 1
    return _bisected(lambda n: power_over(floor, rate, n, max(round(controls_each * n), 1), alpha=alpha) >= power, most)


def _bisected(enough: Callable[[int], bool], most: int) -> int | None:
    """Smallest number that is enough, by doubling and bisection."""
    high = 4
    while not enough(high):
        high *= 2
        if high > most:
            return None
    return high // 2 + bisect_left(range(high // 2, high), True, key=enough)


def paired_power(only_first: float, only_second: float, n: int, *, alpha: float = ALPHA) -> float:
    """Chance that exact McNemar finds a difference.

    Args:
        only_first, only_second: shares of pairs flagged under one condition only.
        n: pairs.
        alpha: two-sided level.
    """
    _check(only_first, only_second, only_first + only_second)
    discordant = np.arange(n + 1)
    share = only_first + only_second
    if share == 0:
        return 0.0
    low = binom.ppf(alpha / 2, discordant, 0.5) - 1  # candidates for the last count of the lower tail
    low = np.where(binom.cdf(low + 1, discordant, 0.5) <= alpha / 2, low + 1, low)
    first = only_first / share
    rejected = np.where(low >= 0, binom.cdf(low, discordant, first) + binom.sf(discordant - low - 1, discordant, first), 0.0)
    return float(binom.pmf(discordant, n, share) @ rejected)


def paired_detectable(n: int, discordant: float, *, power: float = POWER, alpha: float = ALPHA) -> float | None:
    """Smallest difference between two conditions that exact McNemar finds at n pairs of which a share `discordant` differs.

    Returns:
        None where even the largest, `discordant` itself, is not found.
    """
    shares = np.linspace(0, discordant, 401)

    def enough(i: int) -> bool:
        difference = float(shares[i])
        return paired_power((discordant + difference) / 2, (discordant - difference) / 2, n, alpha=alpha) >= power

    return float(shares[bisect_left(range(len(shares)), True, key=enough)]) if enough(-1) else None
