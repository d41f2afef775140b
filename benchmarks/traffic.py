"""What a process of several holds, computes and sends: the model that `distributed` measures.

`python -m benchmarks.traffic` prints what it foretells for sizes that were not measured.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product

from benchmarks.command import command
from benchmarks.page import Section

SINGLE, LONG = 4, 8  # bytes of a float32, of an int64
GIGA = 1e9


def shared_numbers(x_dim: int, e_dim: int, hidden: Sequence[int]) -> int:
    """Weights and biases of the network f(x, e), which every process holds."""
    return sum((a + 1) * b for a, b in pairwise([x_dim + e_dim, *hidden, 1]))


def bytes_sent(numbers: int, processes: int) -> float:
    """By each process in a step: on a ring every number goes round but for one place, twice."""
    return 2 * (processes - 1) / processes * SINGLE * numbers


def bytes_fetched(rows: float, numbers: int, processes: int, *, learned: bool = False) -> float:
    """By each process in a fetch in which all name as many rows, which lie on all alike.

    Args:
        rows: how many a process names, wherever they lie.
        numbers: float32 in each.
        processes: how many hold them.
        learned: whether their gradients go back.
    """
    travel = LONG + (2 if learned else 1) * SINGLE * numbers  # its number there, itself back
    return (processes - 1) * (rows / processes * travel + LONG)


def distinct(chances: Iterable[float], draws: int) -> float:
    """How many rows so many draws name, of which each has a chance to be the one drawn."""
    return sum(1 - (1 - chance) ** draws for chance in chances)


@dataclass(frozen=True)
class Machines:
    """One GPU, its host and its links: the first four from docs/gpu.md, the rest assumed.

    `draw` and the two of `host` are fitted to what one GPU's share took there (benchmarks.share):
    the first is what the other parts leave of a step of one of 8, the host's are steps of one of
    64, which leave the device idle.

    Attributes:
        pairs: pairs a second, there and back through the network of Table 5 (positives and
            negatives each count).
        draw: seconds that a pair takes to be shuffled and given a negative.
        host: seconds in which the host starts a step of two recordings.
        host_eager: the same without recordings, which x dealt out does not allow.
        memory: bytes a second from and to its memory.
        link: bytes a second that it sends to the next one.
        latency: seconds that a sum or an exchange over all GPUs takes however small it is.
    """

    pairs: float = 2.2e8
    draw: float = 3.4e-9
    host: float = 5e-4
    host_eager: float = 4.4e-3
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
    deal_out: bool = False  # x too

    def named(self, processes: int) -> float:
        """Rows of x that the pairs of a process name in a step, were users drawn alike."""
        return self.users * distinct([1 / self.users], 2 * self.batch // processes)

    def sent(self, processes: int) -> dict[str, float]:
        """Bytes that a process sends in a step, by what they are."""
        of_x = bytes_fetched(self.named(processes), self.x_dim, processes)
        network = bytes_sent(shared_numbers(self.x_dim, self.e_dim, self.hidden), processes)
        return {"network": network} | ({"x": of_x} if self.deal_out else {})

    def memory(self, processes: int) -> dict[str, float]:
        """Bytes on each device, by what they are."""
        of_table = self.tasks / processes * self.e_dim * SINGLE
        pairs = self.exposures / processes
        rows = self.users / processes + self.named(processes) if self.deal_out else self.users
        return {
            "x": rows * self.x_dim * SINGLE,
            "e": 5 * of_table,  # itself, its gradient, two moments, the best so far
            # User and task; order, users, both in one, tasks, and what sorting the order takes.
            "pairs": pairs * (2 + 6) * LONG,
            "base": self.users * LONG,
        }

    def step(self, processes: int, machines: Machines) -> dict[str, float]:
        """Seconds of a step, by what takes them: what the device does, then what it waits for."""
        of_table = self.tasks / processes * self.e_dim * SINGLE
        of_rows = 2 * self.batch / processes * self.x_dim * SINGLE
        device = {
            "pairs": 2 * self.batch / processes / machines.pairs,
            "rows of x": 4 * of_rows / machines.memory,  # fetched, written, and read twice
            "draws": self.batch / processes * machines.draw,
            "Adam on e": 9 * of_table / machines.memory,  # 5 read, 4 written, the gradient's zeros
        }
        host = machines.host_eager if self.deal_out else machines.host
        messages = {"network": 1, "x": 3}  # of which: how many rows, which, and the rows
        return (
            device
            | {"host": max(0.0, host - sum(device.values()))}
            | {
                what: sent / machines.link + messages[what] * machines.latency
                for what, sent in self.sent(processes).items()
            }
        )

    def epoch(self, processes: int, machines: Machines) -> float:
        """Seconds of an epoch."""
        return self.exposures / self.batch * sum(self.step(processes, machines).values())


def main() -> Section:
    """Foretell a step on 8 and 64 GPUs, and what it is where they deal x out too."""
    return foretold(Job(), Machines())


def foretold(job: Job, machines: Machines) -> Section:
    """A row a number of GPUs, and one where they deal x out too."""
    rows = []
    for deal_out, processes in product((False, True), (8, 64)):
        job = replace(job, deal_out=deal_out)
        memory, step = job.memory(processes), job.step(processes, machines)
        held = ", ".join(f"{name} {value / GIGA:.2f}" for name, value in memory.items())
        taken = ", ".join(f"{name} {1000 * value:.2f}" for name, value in step.items())
        rows.append(
            [
                f"{processes}{', x dealt out' if deal_out else ''}",
                f"{sum(memory.values()) / GIGA:.1f} ({held})",
                f"{1000 * sum(step.values()):.2f} ({taken})",
                f"{sum(job.sent(processes).values()):,.0f}",
                f"{job.epoch(processes, machines):.1f}",
            ]
        )
    text = (
        f"Foretold, not measured: {job.exposures:,} exposures of {job.users:,} users to "
        f"{job.tasks:,} tasks, x {job.x_dim} and e {job.e_dim} wide, the network of Table 5, "
        f"{job.batch:,} pairs and as many negatives a step. Measured on one GPU, or fitted to it: "
        f"{machines.pairs:.1e} pairs a second, {machines.draw:.1e} s to draw one, "
        f"{machines.host:.1e} s in which the host starts a step ({machines.host_eager:.1e} where x "
        f"is dealt out). Assumed: {machines.memory:.0e} bytes a second of memory, "
        f"{machines.link:.0e} of its link, {machines.latency:.0e} s for the least sum or "
        "exchange over all."
    )
    header = ("GPUs", "GB on each", "ms a step", "bytes sent by each a step", "seconds an epoch")
    return Section("Far larger", "python -m benchmarks.traffic", text, header, rows)


if __name__ == "__main__":
    command(main)
