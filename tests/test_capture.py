"""Steps that are recorded once for each shape of batch and then replayed."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from pipeline.models.ratio import RatioNet, TaskRatios
from pipeline.sections import Schedule
from pipeline.steps.dropout import MaskSource, set_masks
from pipeline.training.capture import WARM, CudaRecorder, InTwo, Recording, Replayed, fastest
from pipeline.training.history import Row
from pipeline.training.loop import fit
from pipeline.training.session import Session

CUDA = torch.device("cuda")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


class Notes:
    """Records as a CUDA graph does: a replay reads what lies in the recorded inputs by then."""

    def __init__(self) -> None:
        self.ran = 0
        self.recorded = 0

    def run(self, step: Callable[..., Tensor], batch: tuple[Tensor, ...]) -> Tensor:
        self.ran += 1
        return step(*batch)

    def record(self, step: Callable[..., Tensor], batch: tuple[Tensor, ...]) -> Recording:
        self.recorded += 1
        out = torch.zeros(())

        def replay() -> None:
            out.copy_(step(*batch))  # in the same place each time

        return out, replay


def test_a_step_is_recorded_once_for_each_shape_and_replayed_on_each_batch() -> None:
    notes = Notes()
    step = Replayed(lambda x, y: (x * y).sum(), notes)
    batches = [(torch.full((n,), 2.0), torch.arange(n) + k) for n in (3, 5) for k in range(9)]
    found = [step(*batch) for batch in batches]
    assert [float(out) for out in found] == [float((x * y).sum()) for x, y in batches]
    assert notes.ran == 2 * WARM
    assert notes.recorded == 2


def test_a_replay_leaves_the_batch_and_earlier_results_alone() -> None:
    step = Replayed(lambda x: x.mul_(2).sum(), Notes())
    for _ in range(WARM):
        step(torch.ones(2))
    batch = torch.ones(2)
    first, second = step(batch), step(torch.full((2,), 3.0))
    assert batch.tolist() == [1, 1]
    assert (float(first), float(second)) == (4, 12)


def test_of_a_step_in_two_the_halves_are_recorded_and_what_is_between_is_not() -> None:
    notes, met = Notes(), []

    def meet(given: Tensor) -> None:
        met.append(float(given))
        given.add_(1)

    step = Replayed(InTwo(lambda x: x.sum(), meet, lambda given: 10 * given), notes)
    found = [float(step(torch.full((n,), 1.0))) for n in (2, 3) for _ in range(WARM + 2)]
    assert found == [30.0] * (WARM + 2) + [40.0] * (WARM + 2)
    assert met == [2.0] * (WARM + 2) + [3.0] * (WARM + 2)
    assert notes.recorded == 2 * 2


def test_on_a_cpu_a_step_is_what_it_was() -> None:
    def step(x: Tensor) -> Tensor:
        return x

    assert fastest(step, torch.device("cpu"), {}, capture=True) is step


def trained(*, capture: bool, dropout: float, seed: int = 0) -> tuple[TaskRatios, list[Row]]:
    """A small ratio network after some epochs on pairs that it can tell apart, on the GPU."""
    gen = torch.Generator().manual_seed(3)
    x, e = torch.randn(200, 5, generator=gen), torch.randn(20, 4, generator=gen)
    torch.manual_seed(seed)
    net = RatioNet(x_dim=5, task_dim=4, dropout=(dropout,) * 3)
    model, masks = TaskRatios(net, x=x, e=e).to(CUDA), MaskSource(seed, CUDA)
    set_masks(model, masks)
    users = torch.randint(0, 100, (2, 1000), generator=gen).to(CUDA)
    users[1] += 100
    tasks = torch.randint(0, 20, (1000,), generator=gen).to(CUDA)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(users.split(300, dim=1), tasks.split(300), strict=True)

    history = fit(
        model,
        batches=batches,
        loss=model.loss,
        validate=lambda: {"valid_loss": float(model.loss(users, tasks))},
        schedule=Schedule(lr=0.002, batch_size=300, max_epochs=12, patience=99),
        session=Session(),
        random={"masks": masks},
        capture=capture,
    )
    return model, history


@needs_cuda
def test_replays_learn_what_steps_do() -> None:
    (one, by_steps), (other, by_replays) = (trained(capture=c, dropout=0) for c in (False, True))
    for row, again in zip(by_steps, by_replays, strict=True):
        assert again == pytest.approx(row, rel=1e-4)
    assert by_replays[-1]["train_loss"] < 0.95 * by_replays[0]["train_loss"]
    for p, q in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-4)


def counting(masks: MaskSource) -> Callable[[], float]:
    """How many of 1,000 elements a mask drops, counted by a step that is replayed."""
    step = Replayed(
        lambda like: (masks.dropped(like.shape, 0.5) < 0).sum() + 0 * like.sum(),
        CudaRecorder(CUDA, [masks]),
    )
    return lambda: float(step(torch.zeros(1000, device="cuda")))


@needs_cuda
def test_each_replay_draws_other_masks() -> None:
    count = counting(MaskSource(0, CUDA))
    counts = {count() for _ in range(20)}
    assert len(counts) > 10
    assert all(400 < dropped < 600 for dropped in counts)


@needs_cuda
def test_masks_that_begin_anew_do_so_in_replays_too() -> None:
    masks = MaskSource(0, CUDA)
    count, counts = counting(masks), []
    for epoch in range(8):
        masks.seed(epoch % 2)
        counts.append([count() for _ in range(3)])
    assert counts[2:] == counts[:2] * 3
    assert counts[0] != counts[1]


@needs_cuda
def test_masks_do_not_repeat_the_draws_of_a_generator_of_the_same_seed() -> None:
    gen = torch.Generator(CUDA).manual_seed(0)
    pairs = torch.randint(1 << 16, (1000,), generator=gen, device=CUDA).cpu()
    assert (pairs == MaskSource(0, CUDA).integers(1000, 1 << 16).cpu()).float().mean() < 0.1


@needs_cuda
def test_a_run_with_masks_repeats_itself() -> None:
    (_, first), (_, second) = (trained(capture=True, dropout=0.5) for _ in range(2))
    for row, again in zip(first, second, strict=True):
        assert again == pytest.approx(row, rel=1e-3)


@needs_cuda
def test_a_module_that_counts_its_batches_does_so_in_replays() -> None:
    norm = nn.BatchNorm1d(3).cuda()
    step = Replayed(lambda x: norm(x).sum(), CudaRecorder(CUDA, []))
    for _ in range(10):
        step(torch.randn(8, 3, device="cuda"))
    assert int(norm.num_batches_tracked) == 10
