"""What a process of several holds, computes and sends: the model that `distributed` measures.

`python -m benchmarks.traffic` prints what it foretells for sizes that were not measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from benchmarks.page import Section

SINGLE, LONG = 4, 8  # bytes of a float32, of an int64
GIGA = 1e9


def shared_numbers(x_dim: int, e_dim: int, hidden: Sequence[int]) -> int:
    """Weights and biases of the network f(x, e), which every process holds."""
    return sum((a + 1) * b for a, b in pairwise([x_dim + e_dim, *hidden, 1]))


def bytes_sent(numbers: int, processes: int) -> float:
    """By each process in a step: on a ring every number goes round but for one place, twice."""
    return 2 * (processes - 1) / processes * SINGLE * numbers


@dataclass(frozen=True)
class Machines:
    """One GPU and its links: the pairs as docs/gpu.md has them, the rest assumed.

    Attributes:
        pairs: pairs a second, there and back through the network of Table 5 (positives and
            negatives each count).
        memory: bytes a second from and to its memory.
        link: bytes a second that it sends to the next one.
        latency: seconds that a sum over all GPUs takes however small it is.
    """

    pairs: float = 2.2e8
    memory: float = 2e12
    link: float = 5e10
    latency: float = 1e-4


@dataclass(frozen=True)
class Job:
    """A training of Algorithm 1."""

    exposures: int = 10**9
    tasks: int = 10**7
    users: int = 10**7
    x_dim: int = 100
    e_dim: int = 16
    hidden: Sequence[int] = (32, 32, 16)
    batch: int = 1 << 20  # positive pairs a step, of all processes

    def memory(self, processes: int) -> dict[str, float]:
        """Bytes on each device, by what they are."""
        of_table = self.tasks / processes * self.e_dim * SINGLE
        pairs = self.exposures / processes
        return {
            "x": self.users * self.x_dim * SINGLE,
            "e": 5 * of_table,  # itself, its gradient, two moments, the best so far
            "pairs": pairs * (2 + 4) * LONG,  # user and task; an epoch's order, users and tasks
            "base": self.users * LONG,
        }

    def step(self, processes: int, machines: Machines) -> dict[str, float]:
        """Seconds of a step, by what takes them."""
        of_table = self.tasks / processes * self.e_dim * SINGLE
        sent = bytes_sent(shared_numbers(self.x_dim, self.e_dim, self.hidden), processes)
        return {
            "pairs": 2 * self.batch / processes / machines.pairs,
            "Adam on e": 9 * of_table / machines.memory,  # 5 read, 4 written, the gradient's zeros
            "network": sent / machines.link + machines.latency,
        }

    def epoch(self, processes: int, machines: Machines) -> float:
        """Seconds of an epoch."""
        return self.exposures / self.batch * sum(self.step(processes, machines).values())


def main(job: Job, machines: Machines) -> Section:
    """A row a number of GPUs."""
    rows = []
    for processes in (8, 64):
        memory, step = job.memory(processes), job.step(processes, machines)
        sent = bytes_sent(shared_numbers(job.x_dim, job.e_dim, job.hidden), processes)
        held = ", ".join(f"{name} {value / GIGA:.2f}" for name, value in memory.items())
        taken = ", ".join(f"{name} {1000 * value:.2f}" for name, value in step.items())
        rows.append(
            [
                str(processes),
                f"{sum(memory.values()) / GIGA:.1f} ({held})",
                f"{1000 * sum(step.values()):.2f} ({taken})",
                f"{sent:,.0f}",
                f"{job.epoch(processes, machines):.1f}",
            ]
        )
    text = (
        f"Foretold, not measured: {job.exposures:,} exposures of {job.users:,} users to "
        f"{job.tasks:,} tasks, x {job.x_dim} and e {job.e_dim} wide, the network of Table 5, "
        f"{job.batch:,} pairs and as many negatives a step. Assumed of a GPU: "
        f"{machines.pairs:.0e} pairs a second, {machines.memory:.0e} bytes a second of memory, "
        f"{machines.link:.0e} of its link, {machines.latency:.0e} s for the least sum over all."
    )
    header = ("GPUs", "GB on each", "ms a step", "bytes sent by each a step", "seconds an epoch")
    return Section("Far larger", "python -m benchmarks.traffic", text, header, rows)


if __name__ == "__main__":
    print(main(Job(), Machines()))
