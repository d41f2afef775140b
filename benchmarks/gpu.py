"""Algorithm 1 on a CUDA device: pairs a second by batch size, eager, captured and deterministic.

One call prints the whole table: `python -m benchmarks.gpu`. Without a CUDA device it says so.
"""

import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.data import E_DIM, TASKS, USERS, X_DIM
from benchmarks.page import Section
from benchmarks.textbook import DROPOUT, HIDDEN, Textbook
from benchmarks.timing import Spread
from pipeline.estimation import ratio_loss
from pipeline.models.ratio import RatioNet, TaskRatios
from pipeline.training.dropout import MaskSource, set_masks

BATCHES = (8_192, 65_536, 524_288)
STEPS, ROUNDS, LR = 20, 9, 2e-3
TEXT = """
A step of Algorithm 1 on the network of Table 5 with dropout and Adam, everything resident, batches
of fixed shape: million pairs a second, a positive and a negative being two pairs. Plain: rows
concatenated, `nn.Dropout`. Captured: the plain network's step replayed as one CUDA graph.
Deterministic: ours under `torch.use_deterministic_algorithms`. On {device}.
"""
Step = Callable[[], object]


def main(device: torch.device) -> Section:
    """A row a batch size."""
    rows = []
    for batch in BATCHES:
        user = torch.randint(USERS, (2, batch), device=device)
        task = torch.randint(TASKS, (batch,), device=device)
        steps = {
            "plain": plain_step(user, task),
            "captured": captured(plain_step(user, task)),
            "ours": our_step(user, task),
        }
        rates = [_rate(step, 2 * batch, device).show() for step in steps.values()]
        torch.use_deterministic_algorithms(mode=True, warn_only=True)
        rates.append(_rate(our_step(user, task), 2 * batch, device).show())
        torch.use_deterministic_algorithms(mode=False)
        rows.append([f"{batch:,}", *rates])
    header = (f"batch, n = {ROUNDS}", "plain", "captured", "ours", "deterministic")
    text = TEXT.format(device=torch.cuda.get_device_name(device))
    return Section("GPU", "python -m benchmarks.gpu", text, header, rows)


def plain_step(user: Tensor, task: Tensor) -> Step:
    """A step of the textbook network, of which nothing waits for the host."""
    x, e = _tables(user.device)
    model = Textbook(X_DIM, e).to(user.device)
    return _step(model, lambda: ratio_loss(model(x[user], task.expand_as(user))))


def our_step(user: Tensor, task: Tensor) -> Step:
    """A step of the pipeline."""
    x, e = _tables(user.device)
    net = RatioNet(x_dim=X_DIM, task_dim=E_DIM, hidden=HIDDEN, dropout=DROPOUT)
    model = TaskRatios(net, x=x, e=e).to(user.device)
    set_masks(model, MaskSource(0, user.device))
    return _step(model, lambda: model.loss(user, task))


def captured(step: Step) -> Step:
    """The step as a CUDA graph, after a few on a stream of its own, as capturing asks for."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def _tables(device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.randn(USERS, X_DIM, device=device), torch.randn(TASKS, E_DIM, device=device)


def _step(model: torch.nn.Module, loss: Callable[[], Tensor]) -> Step:
    capturable = next(model.parameters()).is_cuda
    adam = torch.optim.Adam(model.parameters(), lr=LR, fused=True, capturable=capturable)

    def step() -> None:
        adam.zero_grad()
        loss().backward()
        adam.step()

    return step


def _rate(step: Step, pairs: int, device: torch.device) -> Spread:
    """Million pairs a second, over rounds of some steps, after one that does not count."""
    rates = []
    for _ in range(ROUNDS + 1):
        torch.cuda.synchronize(device)
        started = time.perf_counter()
        for _ in range(STEPS):
            step()
        torch.cuda.synchronize(device)
        rates.append(1e-6 * STEPS * pairs / (time.perf_counter() - started))
    return Spread.of(rates[1:])


if __name__ == "__main__":
    if not torch.cuda.is_available():
        sys.exit("benchmarks.gpu: torch finds no CUDA device here; run it where there is one.")
    print(main(torch.device("cuda")))
