"""Maximum likelihood over all tasks: what is learned, from whom, and which epoch is kept."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.density import Density, density_scores, train_density
from pipeline.examples import Examples
from pipeline.model_files import read_network, write_network
from pipeline.models.gaussian import ConditionalGaussian
from pipeline.models.maf import ConditionalMaf
from pipeline.pairs import Pairs
from pipeline.sections import Schedule
from pipeline.training.history import Row, best_row
from pipeline.training.session import Session
from pipeline.yardsticks import exposure_sides

MEANS = np.array([[0, 0], [3, -2], [-1, 4]], np.float32)
SPREADS = np.array([[1, 0.5], [0.3, 2], [1, 1]], np.float32)


def examples(per_task: int = 400, *, bent: bool = False, seed: int = 0) -> Examples:
    """Three tasks, each with users of its own; x_2 is bent by x_1 squared if asked.

    Of every ten users seven train, one validates with a visible pair, one with a held-out one, and
    one is a test user.
    """
    rng = np.random.default_rng(seed)
    task = np.repeat(np.arange(3), per_task)
    x = MEANS[task] + SPREADS[task] * rng.standard_normal((len(task), 2), np.float32)
    if bent:
        x[:, 1] += x[:, 0] ** 2
    place = np.arange(len(task)) % 10
    return Examples(
        x=x,
        pairs=Pairs(np.arange(len(task)), task, place == 8),
        train=np.flatnonzero(place < 7),
        valid=np.flatnonzero((place == 7) | (place == 8)),
        tasks=3,
    )


def train(
    net: Density, data: Examples, *, epochs: int = 40, lr: float = 0.005, noise: float = 0.0
) -> list[Row]:
    return train_density(
        net,
        data,
        watched=exposure_sides(data.pairs, data.valid, data.tasks),
        schedule=Schedule(lr=lr, batch_size=128, max_epochs=epochs, patience=10),
        weight_decay=0,
        noise=noise,
        seed=0,
        session=Session(),
    )


def true_loss(data: Examples, users: np.ndarray) -> float:
    """Mean -log q_t(x) of bent examples under the law they come from (a bend has determinant 1)."""
    task, x = data.pairs.task[users], data.x[users].astype(float)
    x[:, 1] -= x[:, 0] ** 2
    z = (x - MEANS[task]) / SPREADS[task]
    return float((z**2 / 2 + np.log(SPREADS[task] * math.sqrt(2 * math.pi))).sum(1).mean())


def test_the_gaussian_learns_each_tasks_mean_and_variance() -> None:
    """Their closed form: those of the training exposures."""
    data = examples(1000)
    net = ConditionalGaussian(x_dim=2, tasks=3, task_dim=4, hidden=(32, 32))
    train(net, data)
    mean, log_variance = (moment.detach().numpy() for moment in net.moments())
    for task in range(3):
        own = data.x[data.train[data.pairs.task[data.train] == task]]
        np.testing.assert_allclose(mean[task], own.mean(0), atol=0.15)
        np.testing.assert_allclose(log_variance[task], np.log(own.var(0)), atol=0.15)


def test_noise_in_training_widens_what_is_learned() -> None:
    """A task's variance, and that of the noise, which is half the spread of all x."""
    data = examples(1000)
    net = ConditionalGaussian(x_dim=2, tasks=3, task_dim=4, hidden=(32, 32))
    train(net, data, noise=0.5)
    _, log_variance = (moment.detach().numpy() for moment in net.moments())
    expected = SPREADS**2 + (0.5 * data.x.std(0)) ** 2
    np.testing.assert_allclose(np.exp(log_variance), expected, rtol=0.2)


def test_points_that_repeat_have_a_finite_density_under_noise() -> None:
    data = examples(400)
    data = replace(data, x=MEANS[data.pairs.task])  # one point a task
    net = ConditionalMaf(x_dim=2, tasks=3, blocks=2, hidden=16)
    history = train(net, data, epochs=30, noise=0.3)
    least = 2 * (0.5 + math.log(0.1 * math.sqrt(2 * math.pi)))  # of a normal law of a third of it
    assert all(least < row["valid_loss"] < 10 for row in history)


def test_the_flow_learns_what_a_gaussian_cannot() -> None:
    """Its validation loss comes near the entropy of a bent density."""
    data = examples(1000, bent=True)
    flow = ConditionalMaf(x_dim=2, tasks=3, hidden=32, blocks=3)
    loss = best_row(train(flow, data, epochs=20))["valid_loss"]
    gaussian = ConditionalGaussian(x_dim=2, tasks=3, task_dim=4, hidden=(32, 32))
    straight = best_row(train(gaussian, data, epochs=20))["valid_loss"]
    seen = data.valid[~data.pairs.held_out[data.valid]]
    entropy = true_loss(data, seen)
    assert loss < entropy + 0.1
    assert straight > entropy + 0.5


def models() -> list[Density]:
    return [
        ConditionalGaussian(x_dim=2, tasks=3, task_dim=4, hidden=(8, 8)),
        ConditionalMaf(x_dim=2, tasks=3, hidden=8, blocks=2),
    ]


@pytest.mark.parametrize("net", models(), ids=["gaussian", "maf"])
def test_the_net_is_left_at_its_best_epoch(net: Density) -> None:
    """Its statistics too: the losses of that epoch's row come out of it again."""
    data = examples()
    history = train(net, data, epochs=25, lr=0.05)
    best = best_row(history)
    assert best["epoch"] < len(history)
    for name, held_out in (("valid_loss", False), ("held_out_loss", True)):
        users = data.valid[data.pairs.held_out[data.valid] == held_out]
        x, task = torch.from_numpy(data.x[users]), torch.from_numpy(data.pairs.task[users])
        with torch.no_grad():
            assert -net(x, task).mean().item() == pytest.approx(best[name], rel=1e-5)


@pytest.mark.parametrize("net", models(), ids=["gaussian", "maf"])
def test_scores_are_high_for_the_users_of_a_task(net: Density) -> None:
    data = examples()
    history = train(net, data, epochs=15, lr=0.02)
    scores = density_scores(net, torch.from_numpy(data.x), torch.arange(3))
    assert scores.shape == (3, 1200)
    assert scores.dtype == np.float32
    assert (scores.argmax(0) == data.pairs.task).mean() > 0.9
    assert best_row(history)["valid_auc"] > 0.95


@pytest.mark.parametrize("net", models(), ids=["gaussian", "maf"])
def test_a_seed_decides_everything_but_the_users_it_never_sees(net: Density) -> None:
    """Other test users and other held-out pairs leave the weights as they are."""
    data = examples()
    train(net, data, epochs=2)
    first = {name: value.clone() for name, value in net.state_dict().items()}
    x = data.x.copy()
    x[np.arange(len(x)) % 10 >= 8] += 5  # held-out pairs, and test users
    train(net, Examples(x, data.pairs, data.train, data.valid, data.tasks), epochs=2)
    assert all(torch.equal(value, first[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("net", models(), ids=["gaussian", "maf"])
def test_a_density_on_disk_is_the_same_density(net: Density, tmp_path: Path) -> None:
    net.draw_weights(torch.Generator().manual_seed(1))
    write_network(net, tmp_path / "net.safetensors")
    again = read_network(type(net), tmp_path / "net.safetensors")
    x, task = torch.randn(9, 2), torch.arange(9) % 3
    assert torch.equal(again(x, task), net.eval()(x, task))


@pytest.mark.parametrize("overflowed", [-math.inf, math.nan])
def test_where_a_density_overflows_it_counts_as_nothing(overflowed: float) -> None:
    class Far(ConditionalGaussian):
        """A density that overflows for x above 1."""

        def forward(self, x: torch.Tensor, task: torch.Tensor) -> torch.Tensor:
            return torch.where(x[:, 0] > 1, overflowed, x[:, 0]).expand(len(task), -1)

    net = Far(x_dim=1, tasks=2, task_dim=1, hidden=[2])
    scores = density_scores(net, torch.tensor([[0.5], [2.0], [-3.0]]), torch.arange(2))
    assert np.isfinite(scores).all()
    assert (scores.argsort(1) == [1, 2, 0]).all()
