"""Algorithm 1 in several processes: time and bytes over the network of a step.

`python -m benchmarks.distributed` runs 1, 2 and 4 processes, the several without and with x dealt
out, and prints a table. They run in a network name space of their own where one can be made, so
that its loopback interface counts their bytes alone; elsewhere it counts those of others too.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from benchmarks.command import command
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

BATCH, EXPOSURES, WARM_UP, STEPS = 8_192, 200_000, 3, 20
RUNS = ((1, False), (2, False), (4, False), (2, True), (4, True))  # processes, deal_out
WORKER, DEAL_OUT = "--worker", "--deal-out"
APART = ("unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "-")
TEXT = f"""
A step of Algorithm 1 on {BATCH:,} pairs and as many negatives, all processes together: 6,040 users,
1,620 tasks, x and e {X_DIM} wide, the network of Table 5 with dropout. One thread a process,
n = {STEPS} steps after {WARM_UP} that do not count; 1 is without torchrun. Bytes are what a process
sends in a step: by the model, by the tensors that are added up or exchanged, and as the loopback
interface counts them (TCP and its answers included). Measured on {{machine}}.
"""


def main() -> Section:
    """A row a number of processes, and one where they deal x out too."""
    rows = []
    for processes, deal_out in RUNS:
        told = json.loads(run_worker(processes, deal_out=deal_out))
        rows.append(
            [
                f"{processes}{', x dealt out' if deal_out else ''}",
                Spread.of(told["ms"]).show(),
                f"{told['cpu']:.1f}",
                f"{foretold(processes, deal_out=deal_out):,.0f}",
                f"{told['tensors']:,.0f}",
                f"{told['interface']:,.0f}",
            ]
        )
    header = (f"processes, n = {STEPS}", "ms a step", "CPU ms", "model", "tensors", "interface")
    command = "python -m benchmarks.distributed"
    return Section("Several processes", command, TEXT.format(machine=machine()), header, rows)


def foretold(processes: int, *, deal_out: bool) -> float:
    """Bytes that a process sends in a step, by the model."""
    network = bytes_sent(shared_numbers(X_DIM, E_DIM, HIDDEN), processes)
    if not deal_out:
        return network
    drawn = np.bincount(sample(exposures=EXPOSURES).user, minlength=USERS)
    shards = len(here(Ranks(0, processes, alone=False)))  # each fetches for itself
    rows = distinct(drawn / drawn.sum(), 2 * BATCH // (processes * shards))
    return network + shards * bytes_fetched(rows, X_DIM, processes)


def run_worker(processes: int, *, deal_out: bool = False) -> str:
    """What the process that leads prints: seconds and bytes as JSON."""
    worker = ["-m", "benchmarks.distributed", WORKER, *([DEAL_OUT] if deal_out else [])]
    command = [sys.executable, *worker]
    if processes > 1:
        several = ["--standalone", f"--nproc-per-node={processes}"]
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


def worker(*, deal_out: bool) -> None:
    """One of the processes: train, and count."""
    torch.set_num_threads(1)
    ranks = join_ranks(torch.device("cpu"), deal_out=deal_out)
    data = sample(exposures=EXPOSURES)
    net = RatioNet(x_dim=X_DIM, task_dim=E_DIM, hidden=HIDDEN, dropout=DROPOUT)
    with torch.no_grad():
        for parameter in net.parameters():
            ranks.from_lead(parameter)
    x = ranks.own(data.x).clone() if ranks.deal_out else data.x
    model = TaskRatios(net, x=x, e=data.e, ranks=ranks)
    with Split(model, TaskRatios.of_tasks, ranks) as split:
        steps = _steps(model, split, data)
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


def _steps(model: TaskRatios, split: Split, data: Sample) -> Iterator[float]:
    """Steps of a training without end, each as the seconds that it took."""
    ranks = split.ranks
    user, task = torch.from_numpy(data.user), torch.from_numpy(data.task)
    base = CountedSampler(user, task, user.bincount(minlength=len(data.x)).cumsum(0))
    own = task % ranks.size == ranks.rank
    pairs = PairSampler(user, task, user) if ranks is ALONE else _of(base, own, ranks)
    course = make_course(model, model.loss, pairs, [], batch_size=BATCH, seed=0, ranks=ranks)
    adam = torch.optim.Adam(model.parameters(), lr=2e-3, fused=True)
    while True:
        for batch in course.batches():
            started = time.perf_counter()
            loss = course.loss(*batch)
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
        worker(deal_out=DEAL_OUT in sys.argv)
    else:
        command(main)
