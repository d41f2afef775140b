"""Algorithm 1 in several processes: time and bytes over the network of a step.

`python -m benchmarks.distributed` runs 1, 2 and 4 processes, by two sizes of a batch and, the
several, with x dealt out, and prints a table. They run in a network name space of their own where
one can be made, so that its loopback interface counts their bytes alone; elsewhere it counts those
of others too.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from benchmarks.command import command as run
from benchmarks.data import E_DIM, USERS, X_DIM, Sample, sample
from benchmarks.page import Section, machine
from benchmarks.textbook import DROPOUT, HIDDEN
from benchmarks.timing import Spread
from benchmarks.traffic import SINGLE, bytes_fetched, bytes_sent, distinct, shared_numbers
from pipeline.models.ratio import RatioNet, TaskRatios
from pipeline.ranks import ALONE, Ranks, join_ranks, leave_ranks
from pipeline.steps.sampler import CountedSampler, PairSampler
from pipeline.training.course import make_course
from pipeline.training.shards import here
from pipeline.training.split import Split

EXPOSURES, WARM_UP, STEPS = 800_000, 3, 20
WORKER = "--worker"
APART = ("unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "-")
TEXT = f"""
A step of Algorithm 1 on a batch of pairs and as many negatives, all processes together: 6,040
users, 1,620 tasks, x and e {X_DIM} wide, the network of Table 5 with dropout. One thread a process,
n = {STEPS} steps after {WARM_UP} that do not count; 1 is without torchrun. Bytes are what a process
sends in a step: by the model, by the tensors that are added up or exchanged, and as the loopback
interface counts them (TCP and its answers included). Measured on {{machine}}.
"""


@dataclass(frozen=True)
class Job:
    """What is measured: so many processes, pairs a step of all together, and whether x is dealt."""

    processes: int
    batch: int = 8_192
    deal_out: bool = False

    def __str__(self) -> str:
        return f"{self.batch:,}, {self.processes}{', x dealt out' if self.deal_out else ''}"


JOBS = (
    *(Job(processes, batch) for batch in (8_192, 131_072) for processes in (1, 2, 4)),
    *(Job(processes, deal_out=True) for processes in (2, 4)),
)


def main() -> Section:
    """A row a job."""
    rows = []
    for job in JOBS:
        told = json.loads(run_worker(job))
        rows.append(
            [
                str(job),
                Spread.of(told["ms"]).show(),
                f"{told['cpu']:.1f}",
                f"{foretold(job):,.0f}",
                f"{told['tensors']:,.0f}",
                f"{told['interface']:,.0f}",
            ]
        )
    what = f"batch, processes, n = {STEPS}"
    header = (what, "ms a step", "CPU ms", "model", "tensors", "interface")
    command = "python -m benchmarks.distributed"
    return Section("Several processes", command, TEXT.format(machine=machine()), header, rows)


def foretold(job: Job) -> float:
    """Bytes that a process sends in a step, by the model."""
    network = bytes_sent(shared_numbers(X_DIM, E_DIM, HIDDEN), job.processes)
    if not job.deal_out:
        return network
    drawn = np.bincount(sample(exposures=EXPOSURES).user, minlength=USERS)
    shards = len(here(Ranks(0, job.processes, alone=False)))  # each fetches for itself
    rows = distinct(drawn / drawn.sum(), 2 * job.batch // (job.processes * shards))
    return network + shards * bytes_fetched(rows, X_DIM, job.processes)


def run_worker(job: Job) -> str:
    """What the process that leads prints: seconds and bytes as JSON."""
    worker = ["-m", "benchmarks.distributed", WORKER, json.dumps(asdict(job))]
    command = [sys.executable, *worker]
    if job.processes > 1:
        several = ["--standalone", f"--nproc-per-node={job.processes}"]
        command = [sys.executable, "-m", "torch.distributed.run", *several, *worker]
    if apart():
        command = [*APART, *command]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)  # noqa: S603
    return done.stdout


def apart() -> bool:
    """Whether a network name space can be made here."""
    found = shutil.which("unshare")
    return bool(found) and not subprocess.run([*APART, "true"], check=False).returncode  # noqa: S603


def worker(job: Job) -> None:
    """One of the processes: train, and count."""
    torch.set_num_threads(1)
    ranks = join_ranks(torch.device("cpu"), deal_out=job.deal_out)
    data = sample(exposures=EXPOSURES)
    net = RatioNet(x_dim=X_DIM, task_dim=E_DIM, hidden=HIDDEN, dropout=DROPOUT)
    with torch.no_grad():
        for parameter in net.parameters():
            ranks.from_lead(parameter)
    x = ranks.own(data.x).clone() if ranks.deal_out else data.x
    model = TaskRatios(net, x=x, e=data.e, ranks=ranks)
    with Split(model, TaskRatios.of_tasks, ranks) as split:
        steps = _steps(model, split, data, job.batch)
        for _ in range(WARM_UP):
            next(steps)
        with counted(ranks) as sent:
            ranks.total(0)
            before, cpu = _on_loopback(), time.process_time()
            seconds = [next(steps) for _ in range(STEPS)]
            ranks.total(0)
            told = {
                "ms": [1000 * second for second in seconds],
                "cpu": 1000 * (time.process_time() - cpu) / STEPS,
                "tensors": ranks.mean(sum(sent) / STEPS, 1),
                "interface": (_on_loopback() - before) / STEPS / ranks.size,
            }
    leave_ranks()
    if ranks.leads:
        print(json.dumps(told))


def _steps(model: TaskRatios, split: Split, data: Sample, batch: int) -> Iterator[float]:
    """Steps of a training without end, each as the seconds that it took."""
    ranks = split.ranks
    user, task = torch.from_numpy(data.user), torch.from_numpy(data.task)
    base = CountedSampler(user, task, user.bincount(minlength=len(data.x)).cumsum(0))
    own = task % ranks.size == ranks.rank
    pairs = PairSampler(user, task, user) if ranks is ALONE else _of(base, own, ranks)
    course = make_course(model, model.loss, pairs, [], batch_size=batch, seed=0, ranks=ranks)
    adam = torch.optim.Adam(model.parameters(), lr=2e-3, fused=True)
    while True:
        for pairs_of_step in course.batches():
            started = time.perf_counter()
            loss = course.loss(*pairs_of_step)
            adam.zero_grad()
            loss.backward()
            split.add_gradients()
            adam.step()
            yield time.perf_counter() - started


def _of(pairs: CountedSampler, own: Tensor, ranks: Ranks) -> CountedSampler:
    return CountedSampler(pairs.user[own], pairs.task[own] // ranks.size, pairs.base)


@contextmanager
def counted(ranks: Ranks) -> Iterator[list[float]]:
    """Bytes of the tensors that are added up meanwhile, as a ring sends them, or exchanged."""
    sent: list[float] = []
    add_up, exchange = dist.all_reduce, dist.all_to_all_single

    def counting(tensor: Tensor) -> None:
        if tensor.dim():  # not the marks before and after
            sent.append(bytes_sent(tensor.numel(), ranks.size) * tensor.element_size() / SINGLE)
        add_up(tensor)

    def exchanging(got: Tensor, rows: Tensor, given: list[int], to: list[int]) -> None:
        others = sum(to) - to[ranks.rank]
        sent.append(others * rows[:1].nbytes)
        exchange(got, rows, given, to)

    dist.all_reduce, dist.all_to_all_single = counting, exchanging  # type: ignore[assignment]
    try:
        yield sent
    finally:
        dist.all_reduce, dist.all_to_all_single = add_up, exchange


def _on_loopback() -> int:
    """Bytes that the loopback interface of this name space has sent so far."""
    with open("/proc/net/dev") as file:  # noqa: PTH123 - of this very process
        line = next(line for line in file if line.strip().startswith("lo:"))
    return int(line.split(":")[1].split()[8])


if __name__ == "__main__":
    if sys.argv[1:2] == [WORKER]:
        worker(Job(**json.loads(sys.argv[2])))
    else:
        run(main)
