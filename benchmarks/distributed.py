"""Algorithm 1 in several processes: time and bytes over the network of a step.

`python -m benchmarks.distributed` runs 1, 2 and 4 processes, by two sizes of a batch and, the
several, with x dealt out, and prints a table. They run in a network name space of their own where
one can be made, so that its loopback interface counts their bytes alone; elsewhere it counts those
of others too.

With `--device cuda` they talk by NCCL, one device a process. Where there are fewer they share them,
which NCCL lets the processes of several machines do: bytes are those of several machines, but not
milliseconds, since they take turns on a device.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.distributed as dist
import typer
from torch import Tensor

from benchmarks.command import command as run
from benchmarks.data import E_DIM, USERS, X_DIM, Sample, sample
from benchmarks.device import cuda_device
from benchmarks.page import Section, machine
from benchmarks.textbook import DROPOUT, HIDDEN
from benchmarks.timing import Spread
from benchmarks.traffic import SINGLE, bytes_fetched, bytes_sent, distinct, shared_numbers
from pipeline.models.ratio import RatioNet, TaskRatios
from pipeline.ranks import ALONE, Ranks, join_ranks, leave_ranks
from pipeline.steps.sampler import CountedSampler, PairSampler, batch_count
from pipeline.training.capture import WARM, fastest
from pipeline.training.course import make_course
from pipeline.training.shards import here
from pipeline.training.split import Split
from pipeline.training.step import make_step

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
ON_CUDA = """
The same by NCCL between CUDA devices ({devices} x {name}). Where there are fewer than processes
they share them: then milliseconds say nothing, since they take turns, and all bytes go over the
loopback interface, as between machines. A step is waited for before the next is started.
"""


@dataclass(frozen=True)
class Job:
    """What is measured: so many processes, pairs a step of all together, and whether x is dealt."""

    processes: int
    batch: int = 8_192
    deal_out: bool = False
    device: Literal["cpu", "cuda"] = "cpu"

    def __str__(self) -> str:
        return f"{self.batch:,}, {self.processes}{', x dealt out' if self.deal_out else ''}"


JOBS = (
    *(Job(processes, batch) for batch in (8_192, 131_072) for processes in (1, 2, 4)),
    *(Job(processes, deal_out=True) for processes in (2, 4)),
)


def main(device: Literal["cpu", "cuda"] = "cpu") -> Section:
    """Time steps of 1, 2 and 4 processes on CPUs or CUDA devices, and count their bytes."""
    if device == "cuda":
        cuda_device("benchmarks.distributed")
    rows = []
    for number, job in enumerate(JOBS, 1):
        told = json.loads(run_worker(replace(job, device=device)))
        took = Spread.of(told["ms"]).show()
        typer.echo(f"{number} of {len(JOBS)}: {job}: {took} ms a step", err=True)
        rows.append(
            [
                str(job),
                took,
                f"{told['cpu']:.1f}",
                f"{foretold(job):,.0f}",
                f"{told['tensors']:,.0f}",
                f"{told['interface']:,.0f}",
            ]
        )
    what = f"batch, processes, n = {STEPS}"
    header = (what, "ms a step", "CPU ms", "model", "tensors", "interface")
    command, text = "python -m benchmarks.distributed", TEXT.format(machine=machine())
    if device == "cuda":
        there = {"devices": torch.cuda.device_count(), "name": torch.cuda.get_device_name()}
        command, text = f"{command} --device cuda", text + ON_CUDA.format(**there)
    return Section("Several processes", command, text, header, rows)


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
    if found is None:
        return False
    return not subprocess.run([*APART, "true"], check=False, capture_output=True).returncode  # noqa: S603


def worker(job: Job) -> None:
    """One of the processes: train, and count."""
    torch.set_num_threads(1)
    device = _own_device(job)
    ranks = join_ranks(device, deal_out=job.deal_out)
    data = sample(exposures=EXPOSURES)
    net = RatioNet(x_dim=X_DIM, task_dim=E_DIM, hidden=HIDDEN, dropout=DROPOUT).to(device)
    with torch.no_grad():
        for parameter in net.parameters():
            ranks.from_lead(parameter)
    x = ranks.own(data.x).clone() if ranks.deal_out else data.x
    model = TaskRatios(net, x=x.to(device), e=data.e.to(device), ranks=ranks)
    with Split(model, TaskRatios.of_tasks, ranks) as split:
        steps = _steps(model, split, data, job.batch)
        for _ in range(_warm_up(job)):
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


def _warm_up(job: Job) -> int:
    """Steps that do not count: on a CUDA device until each shape of batch has been recorded."""
    if job.device == "cpu":
        return WARM_UP
    return (WARM + 1) * batch_count(EXPOSURES, job.batch)


def _own_device(job: Job) -> torch.device:
    """One a process; where they share CUDA devices each is on a machine of its own to NCCL."""
    if job.device == "cpu":
        return torch.device("cpu")
    rank, there = os.environ.get("RANK", "0"), torch.cuda.device_count()
    if there < job.processes:
        os.environ |= {"NCCL_HOSTID": rank, "NCCL_SOCKET_IFNAME": "lo"}
    torch.cuda.set_device(int(rank) % there)
    return torch.device("cuda")


def _steps(model: TaskRatios, split: Split, data: Sample, batch: int) -> Iterator[float]:
    """Steps of a training without end, each as the seconds that it took."""
    ranks, device = split.ranks, model.e.device
    user, task = (torch.from_numpy(rows).to(device) for rows in (data.user, data.task))
    base = CountedSampler(user, task, user.bincount(minlength=len(data.x)).cumsum(0))
    own = task % ranks.size == ranks.rank
    pairs = PairSampler(user, task, user) if ranks is ALONE else _of(base, own, ranks)
    course = make_course(model, model.loss, pairs, [], batch_size=batch, seed=0, ranks=ranks)
    cuda = device.type == "cuda"
    adam = torch.optim.Adam(model.parameters(), lr=2e-3, fused=True, capturable=cuda)
    learn = make_step(course.loss, adam, split)
    step = fastest(learn, device, course.random, capture=not ranks.deal_out)
    while True:
        for pairs_of_step in course.batches():
            started = time.perf_counter()
            step(*pairs_of_step)
            if cuda:
                torch.cuda.synchronize()
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
