"""Algorithm 1 three ways, and the arithmetic below which no way can go."""

import os
import time
from collections.abc import Callable
from itertools import pairwise

import torch

from benchmarks.command import command as run
from benchmarks.data import E_DIM, TASKS, USERS, X_DIM, Sample, sample
from benchmarks.page import Section
from benchmarks.textbook import DROPOUT, HIDDEN, Textbook, by_dataloader, by_tensors
from benchmarks.timing import Race, race
from pipeline.estimation import Estimation, estimate_ratio
from pipeline.models.ratio import RatioNet, TaskRatios
from pipeline.models.weights import draw_layers
from pipeline.sections import Schedule
from pipeline.steps.sampler import PairSampler
from pipeline.training.session import Session

BATCH, LR, ROUNDS = 8192, 2e-3, 11
# So that a round takes each about as long; of (a) enough for the garbage collector to come by.
STEPS = {"a": 6, "workers": 6, "b": 8, "c": 48}
SIDE, FLOOR_PRODUCTS = 1024, 20  # of square matrices, whose products measure the machine
FLOOR_IS = "floor is faster by"
CORES = os.cpu_count() or 1
NAMES = {
    "a": "(a) `Dataset` and `DataLoader`",
    "workers": f"the same with {CORES} worker processes",
    "b": "(b) whole-batch tensors, concatenation, `nn.Dropout`",
    "c": "(c) this pipeline",
    "floor": "the floor",
}
TEXT = f"""
Algorithm 1 on the network of Table 5 with its dropout, batch {BATCH:,}, {USERS:,} users with
{X_DIM} numbers each, {TASKS:,} tasks with {E_DIM}; whole epochs, so that drawing pairs and Adam
count. The floor is the multiply-adds of layers 2 to 4 for every pair, and of layer 1 once for every
user and task, forwards and backwards, at the rate at which this machine multiplies two matrices of
{SIDE} x {SIDE}.
"""
TEXT_OF_CORES = f"""
The same by the wall clock with {CORES} threads, as one who has the machine to oneself would wait.
"""


def main() -> str:
    """Positives a second of the three ways: on one thread, and on every core."""
    data, gen = sample(), torch.Generator().manual_seed(0)
    plain = {name: Textbook(X_DIM, data.e) for name in ("a", "workers", "b")}
    some = {name: data.some(steps * BATCH, gen) for name, steps in STEPS.items()}
    matrix = torch.randn(SIDE, SIDE, generator=gen)
    jobs: dict[str, Callable[[], object]] = {
        "a": lambda: by_dataloader(plain["a"], data.x, some["a"], BATCH, LR),
        "workers": lambda: by_dataloader(
            plain["workers"], data.x, some["workers"], BATCH, LR, workers=CORES
        ),
        "b": lambda: by_tensors(plain["b"], data.x, some["b"], BATCH, LR, gen),
        "c": ours(data, some["c"], BATCH),
        "floor": lambda: [matrix @ matrix for _ in range(FLOOR_PRODUCTS)],
    }
    units = {name: float(steps * BATCH) for name, steps in STEPS.items()}
    units["floor"] = FLOOR_PRODUCTS * BATCH * SIDE**3 / multiply_adds(BATCH)
    timed = {name: (job, units[name]) for name, job in jobs.items()}
    alone = {name: job for name, job in timed.items() if name != "workers"}
    command = "python -m benchmarks.training"
    sections = (
        Section("Training", command, TEXT, _header("CPU"), _rows(race(alone, ROUNDS))),
        Section(
            "Training on every core",
            command,
            TEXT_OF_CORES,
            _header("wall"),
            _rows(race(timed, ROUNDS, threads=CORES, clock=time.perf_counter)),
        ),
    )
    return "\n".join(map(str, sections))


def _header(clock: str) -> tuple[str, ...]:
    return (f"n = {ROUNDS}", f"million positives a {clock} second", "x (a)", "x (b)", FLOOR_IS)


def _rows(result: Race) -> list[list[str]]:
    return [
        [
            NAMES[name],
            result.rate(name, 1e-6).show(),
            result.ratio("a", name).show(),
            result.ratio("b", name).show(),
            result.ratio(name, "floor").show(),
        ]
        for name in result.seconds
    ]


def ours(data: Sample, pairs: PairSampler, batch: int) -> Callable[[], object]:
    """An epoch by `estimate_ratio`, which validates on a single pair."""
    net = RatioNet(x_dim=X_DIM, task_dim=E_DIM, hidden=HIDDEN, dropout=DROPOUT)
    draw_layers(net, torch.Generator().manual_seed(0))
    model = TaskRatios(net, x=data.x, e=data.e)
    one = PairSampler(pairs.user[:1], pairs.task[:1], pairs.user[:1])
    schedule = Schedule(lr=LR, batch_size=batch, max_epochs=1, patience=1)
    return lambda: estimate_ratio(
        model, Estimation(pairs, one, one), schedule, seed=0, session=Session(), loss=model.loss
    )


def multiply_adds(batch: int) -> int:
    """Of a step, a positive and a negative each, forwards and twice as many backwards.

    Less on the first layer: user vectors are not learned, so nothing flows back to them.
    """
    layers = sum(a * b for a, b in pairwise((*HIDDEN, 1)))
    first = HIDDEN[0] * (2 * USERS * X_DIM + 3 * TASKS * E_DIM)
    return 3 * 2 * batch * layers + first


if __name__ == "__main__":
    run(main)
