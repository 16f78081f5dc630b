"""How fast work goes, and how long it still takes, as one line."""

import time
from dataclasses import dataclass, field


@dataclass
class Pace:
    """Counts from the moment it is made."""

    n: int
    """Number of steps."""
    started: float = field(default_factory=time.monotonic)

    def line(self, done: int) -> str:
        """Return `DONE/N, RATE per second, TIME left`."""
        seconds = max(time.monotonic() - self.started, 1e-9)
        left = seconds / max(done, 1) * (self.n - done)
        return f"{done}/{self.n}, {done / seconds:.3g} per second, {_time(left)} left"


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
