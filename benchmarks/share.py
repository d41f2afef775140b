"""What one of several GPUs has to do of a far larger training, measured on one beside `traffic`.

`python -m benchmarks.share` trains a few epochs on the share of one of 8, and of one of 64. All of
a step but the network's sum is there: what the sum takes, only several GPUs can tell.
"""

import time
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from benchmarks.command import command as run
from benchmarks.device import called, cuda_device
from benchmarks.page import Section
from benchmarks.textbook import DROPOUT
from benchmarks.traffic import GIGA, Job, Machines
from pipeline.models.ratio import RatioNet, TaskRatios
from pipeline.ranks import ALONE, Ranks
from pipeline.sections import Schedule
from pipeline.steps.sampler import CountedSampler, batch_count
from pipeline.training.course import make_course
from pipeline.training.history import Row
from pipeline.training.loop import fit
from pipeline.training.session import Session
from pipeline.training.split import Split

EPOCHS = 4  # the first does not count: there steps are recorded
TEXT = """
The share of one of so many GPUs in the training that [scale.md](scale.md) foretells
({exposures:,} exposures of {users:,} users to {tasks:,} tasks, {batch:,} pairs and as many
negatives a step of all of them): its tasks and their exposures, and x of all users. Milliseconds of
a step over an epoch, its shuffling and its draws of negatives included, the median of {epochs}
epochs with the least and the most. Replayed: in two CUDA graphs, as several processes do it, and
nothing said between them; step by step: not recorded. Foretold is the same less the network. Users
are drawn alike. On {device}.
"""


class Silent(Ranks):
    """One of several processes, but for what they would say to one another."""

    def __init__(self) -> None:
        super().__init__(alone=False)

    def add_(self, tensor: Tensor) -> Tensor:
        """As if the others had nothing to add."""
        return tensor


def measured(
    device: torch.device, job: Job | None = None, processes: Sequence[int] = (8, 64)
) -> Section:
    """A row a number of GPUs."""
    job, machines = job or Job(), Machines()
    rows = []
    for count in processes:
        by_steps, _ = epochs(job, count, device, capture=False)
        replayed, peak = epochs(job, count, device, capture=True)
        step = job.step(count, machines)
        rows.append(
            [
                f"{count}",
                f"{1000 * (sum(step.values()) - step['network']):.2f}",
                _spread(replayed),
                _spread(by_steps),
                f"{sum(job.memory(count).values()) / GIGA:.1f}",
                f"{peak / GIGA:.1f}" if device.type == "cuda" else "",
            ]
        )
    on = called(device, "not replayed")
    said = {"exposures": job.exposures, "users": job.users, "tasks": job.tasks, "batch": job.batch}
    header = ("GPUs", "foretold, ms", "replayed", "step by step", "foretold, GB", "most, GB")
    text = TEXT.format(**said, epochs=EPOCHS - 1, device=on)
    return Section("One GPU's share", "python -m benchmarks.share", text, header, rows)


def epochs(
    job: Job, processes: int, device: torch.device, *, capture: bool
) -> tuple[list[float], int]:
    """Milliseconds of a step in each epoch that counts, and the most bytes on the device."""
    gen = torch.Generator(device).manual_seed(0)

    def drawn(n: int, below: int) -> Tensor:
        return torch.randint(below, (n,), generator=gen, device=device)

    pairs, tasks = job.exposures // processes, job.tasks // processes
    batch = job.batch // processes
    user = drawn(pairs, job.users)
    base = user.bincount(minlength=job.users).cumsum(0)
    x = torch.randn(job.users, job.x_dim, generator=gen, device=device)
    e = torch.randn(tasks, job.e_dim, generator=gen, device=device)
    net = RatioNet(x_dim=job.x_dim, task_dim=job.e_dim, hidden=job.hidden, dropout=DROPOUT)
    model = TaskRatios(net.to(device), x=x, e=e)
    train = CountedSampler(user, drawn(pairs, tasks), base)
    del user, x, e
    course = make_course(model, model.loss, train, [], batch_size=batch, seed=0, ranks=ALONE)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    ended = []

    def report(row: Row) -> None:
        ended.append(time.perf_counter())  # the epoch's losses have been fetched from the device

    fit(
        model,
        batches=course.batches,
        loss=course.loss,
        validate=lambda: {"valid_loss": -float(len(ended))},
        schedule=Schedule(lr=2e-3, batch_size=batch, max_epochs=EPOCHS, patience=EPOCHS),
        session=Session(device=device, report=report),
        random=course.random,
        split=Split(model, TaskRatios.of_tasks, Silent()),
        capture=capture,
    )
    steps = batch_count(pairs, batch)
    most = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    return [1000 * (end - start) / steps for start, end in pairwise(ended)], most


def _spread(times: Sequence[float]) -> str:
    times = sorted(times)
    return f"{times[len(times) // 2]:.2f} [{times[0]:.2f}, {times[-1]:.2f}]"


def main() -> Section:
    """Time the share of one of 8 GPUs, and of one of 64, on the CUDA device of this machine."""
    return measured(cuda_device("benchmarks.share"))


if __name__ == "__main__":
    run(main)
