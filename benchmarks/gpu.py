"""Algorithm 1 on a CUDA device: pairs a second, and whole trainings; eager, compiled, captured.

One call prints all of it: `python -m benchmarks.gpu`. Without a CUDA device it says so. On a CPU
the same code runs uncaptured and uncompiled, which is how it is tested.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.command import command as run
from benchmarks.data import EXPOSURES, TASKS, USERS, sample
from benchmarks.device import called, cuda_device
from benchmarks.page import Section
from benchmarks.textbook import DROPOUT, HIDDEN, Textbook
from benchmarks.timing import Spread
from pipeline.models.ratio import RatioNet, TaskRatios
from pipeline.steps.dropout import MaskSource, set_masks
from pipeline.steps.pair_loss import ratio_loss
from pipeline.steps.sampler import PairSampler
from pipeline.training.capture import Step, fastest
from pipeline.training.split import Split
from pipeline.training.step import make_step

BATCHES = (8_192, 65_536, 524_288)
STEPS, ROUNDS, EPOCHS, LR = 20, 9, 15, 2e-3
TEXT = """
A step of Algorithm 1 on the network of Table 5 with dropout and Adam, everything resident, batches
of fixed shape: million pairs a second, a positive and a negative being two pairs. Plain: rows
concatenated, `nn.Dropout`; compiled: the same by `torch.compile`. Captured: the step replayed as
one CUDA graph, which is how the pipeline trains. Deterministic: under
`torch.use_deterministic_algorithms`. On {device}.
"""
EPOCHS_TEXT = """
Seconds of {epochs} epochs over {pairs:,} exposures of {users:,} users to {tasks:,} tasks, with the
shuffling and the drawing of negatives; the pairs after the last whole batch are left out. On
{device}.
"""
Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Way:
    """A way to a step: a model, its loss of a batch, and what a capture must know of."""

    model: nn.Module
    loss: Loss
    masks: MaskSource | None = None


def plain(x: Tensor, e: Tensor) -> Way:
    """The textbook network, of which nothing waits for the host."""
    model = Textbook(x.shape[1], e).to(x.device)
    return Way(model, lambda user, task: ratio_loss(model(x[user], task.expand_as(user))))


def compiled(x: Tensor, e: Tensor) -> Way:
    """The same, compiled; as it is on a CPU, beside which there may be no compiler."""
    way = plain(x, e)
    return Way(way.model, torch.compile(way.loss)) if x.is_cuda else way


def ours(x: Tensor, e: Tensor) -> Way:
    """The pipeline's own."""
    net = RatioNet(x_dim=x.shape[1], task_dim=e.shape[1], hidden=HIDDEN, dropout=DROPOUT)
    model, masks = TaskRatios(net, x=x, e=e).to(x.device), MaskSource(0, x.device)
    set_masks(model, masks)
    return Way(model, model.loss, masks)


COLUMNS: dict[str, tuple[Callable[[Tensor, Tensor], Way], bool, bool]] = {
    # how, whether captured, whether deterministic
    "plain": (plain, False, False),
    "plain, captured": (plain, True, False),
    "compiled, captured": (compiled, True, False),
    "ours": (ours, False, False),
    "ours, captured": (ours, True, False),
    "ours, captured, deterministic": (ours, True, True),
}


def step_of(way: Way, device: torch.device, *, capture: bool) -> Step:
    """A step of Adam; on a CUDA device recorded and replayed as the training loop does it."""
    cuda = device.type == "cuda"
    adam = torch.optim.Adam(way.model.parameters(), lr=LR, fused=True, capturable=cuda)
    step = make_step(way.loss, adam, Split(way.model))
    random = {} if way.masks is None else {"masks": way.masks}
    return fastest(step, device, random, capture=capture)


def train(step: Step, pairs: PairSampler, batch: int, epochs: int, gen: torch.Generator) -> int:
    """Whole epochs in batches of one shape; gives the number of steps."""
    steps = 0
    for _ in range(epochs):
        order = torch.randperm(len(pairs.user), generator=gen, device=pairs.user.device)
        users = torch.stack([pairs.user[order], pairs.draw_base(len(order), gen)])
        tasks = pairs.task[order]
        for start in range(0, len(order) - batch + 1, batch):
            step(users[:, start : start + batch], tasks[start : start + batch])
            steps += 1
    return steps


def measured(
    device: torch.device,
    *,
    batches: Sequence[int] = BATCHES,
    exposures: int = EXPOSURES,
    epochs: int = EPOCHS,
) -> str:
    """Both tables: a row a batch size, a column a way."""
    name = called(device, "uncaptured and uncompiled")
    data = sample(exposures=exposures)
    x, e = data.x.to(device), data.e.to(device)
    user, task = (torch.from_numpy(rows).to(device) for rows in (data.user, data.task))
    pairs, gen = PairSampler(user, task, user), torch.Generator(device).manual_seed(0)
    rates, seconds = [], []
    for batch in batches:
        some = pairs.draw_base(2 * batch, gen).view(2, batch)
        of = torch.randint(TASKS, (batch,), generator=gen, device=device)
        rates.append([f"{batch:,}"])
        seconds.append([f"{batch:,}"])
        for make, capture, deterministic in COLUMNS.values():
            torch.use_deterministic_algorithms(mode=deterministic, warn_only=True)
            step = step_of(make(x, e), device, capture=capture)
            rates[-1].append(_rate(step, some, of, device).show())
            took = _seconds(partial(train, step, pairs, batch, epochs, gen), device)
            seconds[-1].append(f"{took:.2f}")
            torch.use_deterministic_algorithms(mode=False)
    command = "python -m benchmarks.gpu"
    said = {"device": name, "epochs": epochs, "pairs": len(user), "users": USERS, "tasks": TASKS}
    header = (f"batch, n = {ROUNDS}", *COLUMNS)
    first = Section("GPU: million pairs a second", command, TEXT.format(**said), header, rates)
    header = ("batch, n = 1", *COLUMNS)
    text = EPOCHS_TEXT.format(**said)
    return f"{first}\n{Section('GPU: whole trainings, seconds', command, text, header, seconds)}"


def _rate(step: Step, user: Tensor, task: Tensor, device: torch.device) -> Spread:
    """Million pairs a second, over rounds of some steps, after one that does not count."""

    def steps() -> None:
        for _ in range(STEPS):
            step(user, task)

    seconds = [_seconds(steps, device) for _ in range(ROUNDS + 1)]
    return Spread.of([1e-6 * STEPS * user.numel() / took for took in seconds[1:]])


def _seconds(job: Callable[[], object], device: torch.device) -> float:
    """On the clock, until the device is done."""
    _wait_for(device)
    started = time.perf_counter()
    job()
    _wait_for(device)
    return time.perf_counter() - started


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> str:
    """Time Algorithm 1 on the CUDA device of this machine, step by step and whole."""
    return measured(cuda_device("benchmarks.gpu"))


if __name__ == "__main__":
    run(main)
