"""The full grid: the loss that the sampled pairs have in expectation, block by block."""

import math
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from pipeline.conditional import Conditional, train_conditional
from pipeline.estimation import CHANCE, make_estimation, ratio_loss
from pipeline.models.ratio import RatioNet, TaskRatios, head_dim
from pipeline.models.weights import draw_layers
from pipeline.sections import Base
from pipeline.steps import grid_loss as module
from pipeline.steps.dropout import MaskSource, set_masks
from pipeline.steps.grid import TaskGrid
from pipeline.steps.sampler import PairSampler
from pipeline.training.session import Session
from tests.test_pair_loss import Operations
from tests.worlds import SmallWorld, default_params, small_world

CPU = torch.device("cpu")
X_DIM, E_DIM, USERS, TASKS = 5, 3, 12, 6


def sampler(seed: int = 0, base: Base = "exposures") -> PairSampler:
    """Exposures of users 0 to 9 to all tasks but one; user 11 is in neither base."""
    gen = torch.Generator().manual_seed(seed)
    met = torch.rand(TASKS, USERS, generator=gen) < 0.4
    met[2], met[:, 10:], met[:, 0] = False, False, True
    met[2] = False
    task, user = met.nonzero(as_tuple=True)
    return PairSampler(user, task, user if base == "exposures" else torch.arange(11))


def made(rates: tuple[float, float] = (0.5, 0.3), linear: float | None = None) -> TaskRatios:
    """A model in training mode, with weights large enough for every layer to matter."""
    gen = torch.Generator().manual_seed(0)
    e_dim = E_DIM + head_dim(X_DIM, linear)
    x, e = torch.randn(USERS, X_DIM, generator=gen), torch.randn(TASKS, e_dim, generator=gen)
    net = RatioNet(x_dim=X_DIM, task_dim=e_dim, hidden=(9, 7), dropout=rates, linear=linear)
    draw_layers(net, gen)
    for layer in net.modules():
        if isinstance(layer, nn.Linear):
            layer.weight.data *= 2
    return TaskRatios(net, x=x, e=e).train()


def with_gradients(model: TaskRatios, loss: Tensor) -> Tensor:
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    return torch.cat([loss.detach().reshape(1), *(g.reshape(-1) for g in gradients)])


def of_epoch(model: TaskRatios, grid: TaskGrid, block: int) -> Tensor:
    """Mean over an epoch's blocks of the loss and its gradients."""
    blocks = grid.epoch(block, torch.Generator().manual_seed(1))
    return torch.stack([with_gradients(model, model.grid_loss(grid, *one)) for one in blocks]).mean(
        0
    )


@pytest.mark.parametrize("base", get_args(Base))
@pytest.mark.parametrize("block", [1, 5])
def test_loss_and_gradient_are_the_expectation_of_the_sampled_ones(base: Base, block: int) -> None:
    """Of all pairs against each user of the base in turn: the average is over every negative."""
    model, pairs = made().eval(), sampler(base=base)
    against = [
        with_gradients(
            model,
            ratio_loss(model(torch.stack([pairs.user, one.expand_as(pairs.user)]), pairs.task)),
        )
        for one in pairs.base
    ]
    expected = torch.stack(against).mean(0)
    torch.testing.assert_close(
        of_epoch(model, TaskGrid.of(pairs), block), expected, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("block", [1, 5])
def test_with_heads_it_is_the_expectation_too_and_what_they_cost(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, pairs = made(linear=0.1).eval(), sampler()
    monkeypatch.setattr(module, "BLOCK", 7)
    against = [
        with_gradients(
            model, model.loss(torch.stack([pairs.user, one.expand_as(pairs.user)]), pairs.task)
        )
        for one in pairs.base
    ]
    found = of_epoch(model, TaskGrid.of(pairs), block)
    torch.testing.assert_close(found, torch.stack(against).mean(0), rtol=1e-5, atol=1e-6)
    dear, free = made(linear=0.1), made(linear=0.0)
    losses = [of_epoch(one.eval(), TaskGrid.of(pairs), block)[0] for one in (dear, free)]
    cost = 0.1 * model.e[pairs.task, E_DIM:-1].square().sum(1).mean()
    torch.testing.assert_close(losses[0] - losses[1], cost.detach())


def test_under_dropout_a_block_is_the_same_by_the_logits_with_the_same_masks() -> None:
    model, grid = made(), TaskGrid.of(sampler())
    (task, weight), *_ = grid.epoch(3, torch.Generator().manual_seed(0))
    row = weight.sum(1, keepdim=True)

    def by_logits() -> Tensor:
        f = model.net.of_grid(model.net.user_side(model.x[grid.users]), model.e[task])
        positive, negative = nn.functional.softplus(-f), nn.functional.softplus(f)
        return (weight * positive + row * grid.base * negative).sum()

    results = []
    for way in (lambda: model.grid_loss(grid, task, weight), by_logits):
        set_masks(model, MaskSource(7, CPU))
        results.append(with_gradients(model, way()))
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cells", [1, 7, 10, 25])
def test_the_parts_of_a_block_do_not_show(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, grid = made().eval(), TaskGrid.of(sampler())
    whole = of_epoch(model, grid, 5)
    monkeypatch.setattr(module, "BLOCK", cells)
    torch.testing.assert_close(of_epoch(model, grid, 5), whole, rtol=1e-5, atol=1e-6)


@given(st.integers(0, 99), st.integers(1, 9), st.sampled_from(get_args(Base)))
def test_an_epoch_holds_every_exposure_once(seed: int, block: int, base: Base) -> None:
    """Undone by the number of blocks, the weights of an epoch are the shares of the exposures."""
    pairs = sampler(seed, base)
    grid = TaskGrid.of(pairs)
    found, seen = torch.zeros(TASKS, USERS), 0
    for task, weight in grid.epoch(block, torch.Generator().manual_seed(seed)):
        assert weight.shape == (len(task), len(grid.users))
        found[task[:, None], grid.users] += weight * len(task) / 5
        seen += len(task)
    expected = torch.zeros(TASKS, USERS)
    expected[pairs.task, pairs.user] = 1 / len(pairs.task)
    torch.testing.assert_close(found, expected)
    assert seen == 5  # one of the six tasks has no exposure
    assert float(grid.base.sum()) == pytest.approx(1)
    assert 11 not in grid.users


def test_a_step_takes_few_operations_and_holds_no_more_than_a_part_of_the_grid() -> None:
    """Of 40 tasks x 2,000 users with 32 hidden units, never as much as a tenth."""
    gen = torch.Generator().manual_seed(0)
    net = RatioNet(x_dim=4, task_dim=3)
    draw_layers(net, gen)
    model = TaskRatios(net, x=torch.randn(2000, 4), e=torch.randn(40, 3)).train()
    set_masks(model, MaskSource(0, CPU))
    task, user = torch.arange(40).repeat_interleave(50), torch.randint(2000, (2000,))
    grid = TaskGrid.of(PairSampler(user, task, torch.arange(2000)))
    (block, weight), *_ = grid.epoch(40, gen)
    largest = []

    class Sizes(Operations):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
            out = super().__torch_dispatch__(func, types, args, kwargs)
            if isinstance(out, Tensor):
                largest.append(out.numel())
            return out

    with Sizes() as operations:
        model.grid_loss(grid, block, weight).backward()
    parts = math.ceil(40 / (module.BLOCK // 2000))
    assert max(largest) <= max(module.BLOCK * 32, 40 * 2000)
    assert len(operations.names) < 120 * parts
    assert not {"bernoulli_", "native_dropout", "index_select"} & {*operations.names}


@pytest.fixture(scope="module")
def small() -> SmallWorld:
    return small_world()


def trained(small: SmallWorld, base: Base, **changes: object) -> Conditional:
    schedule = {"lr": 0.01, "batch_size": 64, "max_epochs": 12, "grid_tasks": 2, "base": base}
    start = np.random.default_rng(0).standard_normal((small.examples.tasks, 4), np.float32)
    return train_conditional(
        small.examples,
        start,
        params=default_params(ratio={**schedule, "mode": "grid", **changes}).ratio,
        seed=0,
        session=Session(),
    )


@pytest.mark.parametrize("base", get_args(Base))
def test_it_learns_the_same_as_from_drawn_negatives(small: SmallWorld, base: Base) -> None:
    """Without dropout, both under chance on users who trained, and on those who did not."""
    grid, sampled = (
        trained(small, base, dropout=[0.0, 0.0, 0.0], mode=mode).history
        for mode in ("grid", "sampled")
    )
    assert grid[-1]["train_loss"] < CHANCE - 0.03
    assert grid[-1]["train_loss"] == pytest.approx(sampled[-1]["train_loss"], abs=0.03)
    lowest, of_sampled = (min(row["valid_loss"] for row in rows) for rows in (grid, sampled))
    assert lowest < CHANCE - 0.005
    assert lowest == pytest.approx(of_sampled, abs=0.02)


def test_a_run_of_one_more_epoch_begins_as_the_shorter_one(small: SmallWorld) -> None:
    """Every draw, of blocks and of masks, comes from the seed."""
    short, long = (trained(small, "users", max_epochs=n) for n in (2, 3))
    assert long.history[:2] == short.history
    assert long.history[2]["train_loss"] != long.history[1]["train_loss"]
    data = make_estimation(small.examples, base="users", device=CPU)
    assert len(TaskGrid.of(data.train).users) == len(small.examples.train)
