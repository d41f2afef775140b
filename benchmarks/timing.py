"""Timing that stands on a busy machine: contestants take turns, and ratios are of one round.

By default there is one thread, and the clock counts this process's own CPU seconds: a contestant
does not pay for what else runs meanwhile.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from threadpoolctl import threadpool_limits

Job = Callable[[], object]


@dataclass(frozen=True)
class Spread:
    """Of n figures the median, and the middle half."""

    n: int
    median: float
    low: float  # first quartile
    high: float  # third quartile

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        """Of two values or more."""
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(len(values), median, low, high)

    def show(self, digits: int = 3) -> str:
        """Such as "3.41 [3.32, 3.52]"."""
        low, median, high = (f"{v:.{digits}g}" for v in (self.low, self.median, self.high))
        return f"{median} [{low}, {high}]"


@dataclass(frozen=True)
class Race:
    """Seconds a unit of work of every contestant, round by round."""

    seconds: Mapping[str, list[float]]

    def rate(self, name: str, scale: float = 1.0) -> Spread:
        """Units a second, times `scale`."""
        return Spread.of([scale / s for s in self.seconds[name]])

    def ratio(self, slow: str, fast: str) -> Spread:
        """How many times as fast as `slow` is `fast`, from the two of each round."""
        pairs = zip(self.seconds[slow], self.seconds[fast], strict=True)
        return Spread.of([s / f for s, f in pairs])


def race(
    jobs: Mapping[str, tuple[Job, float]],
    rounds: int,
    *,
    threads: int = 1,
    clock: Callable[[], float] = time.process_time,
) -> Race:
    """Let the jobs take turns for `rounds` rounds, after one that does not count.

    Args:
        jobs: by name, what to run, and how many units of work one run is.
        rounds: at least 2.
        threads: of torch and of the matrix libraries.
        clock: what a second is one of.
    """
    torch.set_num_threads(threads)
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    with threadpool_limits(threads):
        for number in range(rounds + 1):
            for name, (job, units) in jobs.items():
                started = clock()
                job()
                if number:
                    seconds[name].append((clock() - started) / units)
    return Race(seconds)
