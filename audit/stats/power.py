"""Planning: what n transcripts can detect, and how many are needed to detect an effect. Exact, for the tests that the audit uses."""

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
"""The grid of rates has 2**14 steps, so a rate is located to within 0.0001."""


@dataclass(frozen=True)
class Limits:
    """What n transcripts can detect in comparison with a floor."""

    n: int
    n_controls: int | None
    """Transcripts of deployment controls on which the floor is measured; None for a fixed floor."""
    floor: float
    none_flagged_high: float
    """Upper end of the 95 % interval (Wilson) if no transcript is flagged."""
    fewest_flagged: int
    """Smallest number of flagged transcripts that is significantly above the floor.

    For a measured floor, the controls are assumed to have their expected number of flagged transcripts.
    """
    detectable_rate: float | None
    """Lowest true rate that is detected above the floor with the requested power; None if even a rate of 1 is not."""
    power: float
    alpha: float


def power_over(floor: float, rate: float, n: int, n_controls: int | None = None, *, alpha: float = ALPHA) -> float:
    """Return the probability that a true rate of `rate` is detected above the floor by the one-sided tests of `audit.stats.floor`.

    Args:
        floor: true rate of the deployment controls, or the fixed floor.
        rate: true rate of the benchmark.
        n: number of independent transcripts of the benchmark.
        n_controls: number of transcripts of the deployment controls; None for a fixed floor.
        alpha: level. With Holm's correction over m benchmarks, 0.05 / m is the strictest level that a benchmark must pass.

    Raises:
        ConfigError: a rate or the level is not between 0 and 1.
    """
    _check(floor, rate, alpha)
    if n_controls is not None:
        return region(n, n_controls, alpha).power(rate, floor)
    return float(_fixed_power(np.array([n]), floor, rate, alpha)[0])


def _check(*shares: float) -> None:
    if not all(0 <= share <= 1 for share in shares):
        raise ConfigError(f"Invalid rates, power or level {shares}: expected numbers from 0 to 1.")


def _fixed_power(n: Codes, floor: float, rate: float, alpha: float) -> Floats:
    """Return the power of the exact binomial test for each n."""
    power: Floats = binom.sf(_fixed_critical(n, floor, alpha) - 1, n, rate)
    return power


def _fixed_critical(n: Codes, floor: float, alpha: float) -> Codes:
    """Return, for each n, the smallest number of flagged transcripts that is significantly above a rate of `floor`."""
    least = binom.isf(alpha, n, floor).astype(np.int64)  # smallest x with sf(x) <= alpha, so the test rejects from x + 1 upwards
    critical: Codes = np.maximum(least + 1, 1)
    return critical


def limits(floor: float, n: int, n_controls: int | None = None, *, power: float = POWER, alpha: float = ALPHA) -> Limits:
    """Return what n transcripts can detect; the arguments and errors are those of `power_over`."""
    _check(floor, power, alpha)
    if n_controls is None:
        fewest = int(_fixed_critical(np.array([n]), floor, alpha)[0])
    else:
        fewest = int(region(n, n_controls, alpha).critical[round(floor * n_controls)])
    detectable = _lowest(lambda rate: power_over(floor, rate, n, n_controls, alpha=alpha) >= power, floor)
    return Limits(n, n_controls, floor, wilson(0, n).high or 1.0, fewest, detectable, power, alpha)


def _lowest(enough: Callable[[float], bool], low: float) -> float | None:
    """Return the lowest rate from `low` upwards for which `enough` holds, assuming that it then holds for every higher rate."""
    if not enough(1.0):
        return None
    grid = np.linspace(low, 1, 2**_STEPS + 1)
    return float(grid[bisect_left(range(len(grid)), True, key=lambda i: enough(float(grid[i])))])


def transcripts_needed(
    floor: float, rate: float, *, controls_each: float | None = None, power: float = POWER, alpha: float = ALPHA, most: int = 20_000
) -> int | None:
    """Return the number of transcripts from which on a rate is detected above the floor with the requested power.

    Args:
        floor, rate, alpha: see `power_over`.
        controls_each: transcripts of deployment controls per transcript of the benchmark; None for a fixed floor.
        power: requested probability of detection.
        most: largest number tried.

    Returns:
        The number, or None if `most` transcripts are too few. The exact power does not rise steadily with n but goes up and down
        slightly. For a fixed floor, the power is sufficient at this number and at every larger one up to `most`. For a measured floor,
        where these fluctuations are smallest, the number comes from a bisection, which the fluctuations may shift slightly.

    Raises:
        ConfigError: a rate, the power or the level is not between 0 and 1.
    """
    _check(floor, rate, power, alpha)
    if controls_each is None:
        short = np.flatnonzero(_fixed_power(np.arange(1, most + 1), floor, rate, alpha) < power)
        return None if len(short) == most or (len(short) and short[-1] == most - 1) else int(short[-1]) + 2 if len(short) else 1
    return _bisected(lambda n: power_over(floor, rate, n, max(round(controls_each * n), 1), alpha=alpha) >= power, most)


def _bisected(enough: Callable[[int], bool], most: int) -> int | None:
    """Return the smallest number for which `enough` holds, by doubling and bisection; None if doubling exceeds `most`."""
    high = 4
    while not enough(high):
        high *= 2
        if high > most:
            return None
    return high // 2 + bisect_left(range(high // 2, high), True, key=enough)


def paired_power(only_first: float, only_second: float, n: int, *, alpha: float = ALPHA) -> float:
    """Return the probability that the exact McNemar test detects a difference.

    Args:
        only_first, only_second: true shares of pairs that are flagged only under the first or only under the second condition.
        n: number of pairs.
        alpha: two-sided level.
    """
    _check(only_first, only_second, only_first + only_second)
    discordant = np.arange(n + 1)
    share = only_first + only_second
    if share == 0:
        return 0.0
    low = binom.ppf(alpha / 2, discordant, 0.5) - 1  # candidates for the highest count in the lower rejection tail
    low = np.where(binom.cdf(low + 1, discordant, 0.5) <= alpha / 2, low + 1, low)
    first = only_first / share
    rejected = np.where(low >= 0, binom.cdf(low, discordant, first) + binom.sf(discordant - low - 1, discordant, first), 0.0)
    return float(binom.pmf(discordant, n, share) @ rejected)


def paired_detectable(n: int, discordant: float, *, power: float = POWER, alpha: float = ALPHA) -> float | None:
    """Return the smallest difference between two conditions that the exact McNemar test detects with the requested power.

    Args:
        n: number of pairs.
        discordant: share of pairs that are flagged under exactly one of the two conditions.
        power: requested probability of detection.
        alpha: two-sided level.

    Returns:
        The difference between the two rates, or None if even the largest possible one, `discordant` itself, is not detected.
    """
    shares = np.linspace(0, discordant, 401)

    def enough(i: int) -> bool:
        difference = float(shares[i])
        return paired_power((discordant + difference) / 2, (discordant - difference) / 2, n, alpha=alpha) >= power

    return float(shares[bisect_left(range(len(shares)), True, key=enough)]) if enough(-1) else None


def one_sided_detectable(n: int, *, power: float = POWER, alpha: float = ALPHA) -> float | None:
    """Return the smallest share of pairs that must change, all in one direction, for the exact McNemar test to detect it; None for none."""
    shares = np.linspace(0, 1, 1_001)

    def enough(i: int) -> bool:
        return paired_power(0.0, float(shares[i]), n, alpha=alpha) >= power

    return float(shares[bisect_left(range(len(shares)), True, key=enough)]) if enough(-1) else None
