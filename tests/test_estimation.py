"""Algorithm 1 against answers that are known: Gaussians, mixtures, the simulation's truth."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm, spearmanr

from pipeline.conditional import train_conditional
from pipeline.datasets.simulation import draw_world, simulate
from pipeline.errors import PipelineError
from pipeline.estimation import (
    CHANCE,
    PLATEAU,
    estimate_ratio,
    make_estimation,
    mean_loss,
    ratio_loss,
    rested_at_chance,
)
from pipeline.examples import Examples
from pipeline.extractor import Scale
from pipeline.models.ratio import PreEmbeddingNet, RatioNet, SeedRatios, TaskRatios
from pipeline.models.weights import draw_layers
from pipeline.pairs import Pairs
from pipeline.params import Base, Pretrain, Ratio, Schedule, Simulation
from pipeline.scoring import score_all

CPU = torch.device("cpu")
MEANS = np.array([-1.0, 0.5, 1.5])  # of q_t = N(mean, 1)
SHARES = np.array([0.5, 0.2, 0.3])  # m_t
SCHEDULE = {"lr": 0.005, "batch_size": 2048, "max_epochs": 8, "patience": 8}


def silent(row: object) -> None:
    """Reports go nowhere."""


def gaussian_examples(n: int = 100_000, seed: int = 0) -> Examples:
    """Everybody is exposed to one task: x ~ N(mean of the task, 1), every tenth validates."""
    gen = np.random.default_rng(seed)
    task = gen.choice(len(MEANS), n, p=SHARES)
    x = (MEANS[task] + gen.standard_normal(n)).astype(np.float32)[:, None]
    everyone = np.arange(n)
    pairs = Pairs(everyone, task, np.zeros(n, bool))
    valid = everyone % 10 == 0
    return Examples(x, pairs, everyone[~valid], everyone[valid], len(MEANS))


def log_density(x: np.ndarray) -> np.ndarray:
    """log q_t(x): x (n,) -> (M, n)."""
    return norm.logpdf(x, loc=MEANS[:, None])


def log_mixture(x: np.ndarray) -> np.ndarray:
    """log p(x), p = sum_t m_t q_t: (n,) -> (n,). Here it is also the density of users."""
    return np.log(SHARES @ np.exp(log_density(x)))


@pytest.mark.parametrize("base", ["exposures", "users"])
def test_the_learned_ratio_is_the_analytic_one_where_p_has_mass(base: Base) -> None:
    examples = gaussian_examples()
    params = Ratio(hidden=[32, 32], dropout=[0.0, 0.0], base=base, freeze_e=False, **SCHEDULE)
    start = np.eye(3, dtype=np.float32)
    made = train_conditional(examples, start, params=params, seed=0, device=CPU, report=silent)
    x = np.linspace(-2.5, 2.5, 41)
    grid = torch.from_numpy(x.astype(np.float32))[:, None]
    learned = score_all(made.net, grid, torch.from_numpy(made.e))
    error = learned - (log_density(x) - log_mixture(x))
    mass = np.exp(log_mixture(x))
    assert np.sqrt((error**2 @ mass / mass.sum()).mean()) < 0.15
    assert np.abs(error[:, np.abs(x) < 1.5]).max() < 0.15


def test_each_head_of_the_pre_embedding_model_learns_the_ratio_of_its_task() -> None:
    examples = gaussian_examples()
    params = Pretrain(hidden=[32, 32], dropout=[0.0, 0.0], seed_tasks=3, **SCHEDULE)
    net = PreEmbeddingNet(x_dim=1, heads=3, hidden=params.hidden, dropout=params.dropout)
    draw_layers(net, torch.Generator().manual_seed(0))
    data = make_estimation(examples, base="exposures", device=CPU)
    model = SeedRatios(net, x=torch.from_numpy(examples.x))
    estimate_ratio(model, data, params, seed=0, report=silent)
    x = np.linspace(-1.5, 1.5, 25)
    learned = net(torch.from_numpy(x.astype(np.float32))[:, None]).detach().numpy().T
    assert np.abs(learned - (log_density(x) - log_mixture(x))).max() < 0.15


@given(st.integers(0, 2**32 - 1))
def test_no_base_is_closer_to_the_tasks_than_their_mixture(seed: int) -> None:
    """Proposition 1: p = sum_t m_t q_t minimises E_t KL(q_t || p); the minimum is I(t; x)."""
    gen = np.random.default_rng(seed)
    q = gen.dirichlet(np.ones(6), size=4)  # (M, x)
    m = gen.dirichlet(np.ones(4))

    def expected_kl(p: np.ndarray) -> float:
        return float(m @ (q * np.log(q / p)).sum(1))

    def entropy(p: np.ndarray) -> float:
        return float(-(p * np.log(p)).sum())

    mixture = m @ q
    least = expected_kl(mixture)
    assert least == pytest.approx(entropy(mixture) - m @ [entropy(row) for row in q], abs=1e-9)
    for other in gen.dirichlet(np.ones(6), size=20):
        assert expected_kl(other) >= least
        assert expected_kl(0.99 * mixture + 0.01 * other) >= least


def test_the_loss_is_equation_3_and_stable_for_large_logits() -> None:
    logits = torch.tensor([[0.3, -2.0, 1.0], [0.1, 0.5, -4.0]])
    by_hand = (
        torch.log(1 + torch.exp(-logits[0])).mean() + torch.log(1 + torch.exp(logits[1])).mean()
    )
    torch.testing.assert_close(ratio_loss(logits), by_hand)
    assert ratio_loss(torch.zeros(2, 5)) == pytest.approx(CHANCE)
    assert ratio_loss(torch.tensor([[500.0], [-500.0]])) == 0
    assert ratio_loss(torch.tensor([[-500.0], [500.0]])) == 1000


def test_the_mean_loss_does_not_depend_on_the_blocks() -> None:
    gen = torch.Generator().manual_seed(0)
    user, task = torch.randint(50, (2, 101), generator=gen), torch.randint(3, (101,), generator=gen)
    net = RatioNet(x_dim=4, task_dim=2)
    model = TaskRatios(
        net, x=torch.randn(50, 4, generator=gen), e=torch.randn(3, 2, generator=gen)
    ).eval()
    with torch.no_grad():
        whole = float(ratio_loss(model(user, task)))
        assert mean_loss(model, user, task, block=7) == pytest.approx(whole, rel=1e-6)
        assert np.isnan(mean_loss(model, user[:, :0], task[:0]))


@pytest.mark.parametrize("base", ["exposures", "users"])
def test_only_visible_pairs_of_their_own_split_train_and_validate(base: Base) -> None:
    """Users 0-3 train, 4-6 validate, 7-9 test; each has met every task, the last held out."""
    user, task = np.repeat(np.arange(10), 3), np.tile(np.arange(3), 10)
    pairs = Pairs(user, task, task == 2)
    examples = Examples(np.zeros((10, 2), np.float32), pairs, np.arange(4), np.arange(4, 7), 3)
    data = make_estimation(examples, base=base, device=CPU)
    assert set(data.train.user.tolist()) == {0, 1, 2, 3}
    assert set(data.train.base.tolist()) == {0, 1, 2, 3}
    for part in (data.valid, data.held_out):
        assert set(part.user.tolist()) == set(part.base.tolist()) == {4, 5, 6}
    assert set(data.valid.task.tolist()) == {0, 1}
    assert set(data.held_out.task.tolist()) == {2}


def test_nobody_to_learn_from_is_an_error() -> None:
    examples = gaussian_examples(100)
    nobody = Examples(examples.x, examples.pairs, examples.train[:0], examples.valid, 3)
    with pytest.raises(PipelineError, match="none of the 100 exposures to the tasks is of a train"):
        make_estimation(nobody, base="users", device=CPU)


def test_a_run_that_never_left_chance_is_told() -> None:
    rows = [{"valid_loss": CHANCE + 0.01}, {"valid_loss": PLATEAU}]
    assert rested_at_chance(rows)
    assert not rested_at_chance([*rows, {"valid_loss": PLATEAU - 0.001}])


@pytest.mark.parametrize(("base", "floor"), [("exposures", 0.65), ("users", 0.82)])
def test_the_ratio_of_true_latents_is_close_to_the_simulations_truth(
    base: Base, floor: float
) -> None:
    """Rank correlation over users the training never saw, mean over tasks; another sign or base
    falls far below the floor."""
    world = draw_world(size := Simulation(users=1500, items=60, exposures=30_000, seed=1))
    exposures = simulate(size).exposures
    latents = torch.from_numpy(world.latents.astype(np.float32))
    x = Scale.of(latents).apply(latents).numpy()
    user, task = (exposures[name].to_numpy() - 1 for name in ("user_id", "item_id"))
    everyone = np.arange(1500)
    examples = Examples(
        x,
        Pairs(user, task, np.zeros(len(user), bool)),
        everyone[everyone % 4 > 1],
        everyone[everyone % 4 == 1],
        60,
    )
    params = Ratio(
        hidden=[32, 32], dropout=[0.1, 0.1], base=base, freeze_e=False,
        lr=0.005, batch_size=512, max_epochs=12, patience=4,
    )  # fmt: skip
    start = np.random.default_rng(0).standard_normal((60, 8)).astype(np.float32)
    made = train_conditional(examples, start, params=params, seed=0, device=CPU, report=silent)
    test = everyone[everyone % 4 == 0]
    scores = score_all(made.net, torch.from_numpy(x[test]), torch.from_numpy(made.e))
    truth = world.log_ratio(test, np.arange(60), base)
    found = [spearmanr(a, b).statistic for a, b in zip(scores, truth, strict=True)]
    assert np.mean(found) > floor
    other: Base = "users" if base == "exposures" else "exposures"
    wrong = world.log_ratio(test, np.arange(60), other)
    misplaced = [spearmanr(a, b).statistic for a, b in zip(scores, wrong, strict=True)]
    assert np.mean(misplaced) < floor


def test_seeds_decide_the_run() -> None:
    examples = gaussian_examples(2000)
    params = Ratio(
        hidden=[8], dropout=[0.5], base="exposures", freeze_e=False,
        lr=0.01, batch_size=256, max_epochs=2, patience=2,
    )  # fmt: skip
    start = np.eye(3, dtype=np.float32)
    once, again, other = (
        train_conditional(examples, start, params=params, seed=seed, device=CPU, report=silent)
        for seed in (0, 0, 1)
    )
    losses = [[row["valid_loss"] for row in run.history] for run in (once, again, other)]
    assert losses[0] == losses[1]
    assert once.e.tobytes() == again.e.tobytes()
    assert losses[0] != losses[2]


def test_a_schedule_is_all_that_training_needs_of_the_params() -> None:
    """`estimate_ratio` serves any model of pairs, not only the two of the paper."""
    examples = gaussian_examples(2000)
    data = make_estimation(examples, base="exposures", device=CPU)

    class Table(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.level = torch.nn.Parameter(torch.ones(3))

        def forward(self, user: torch.Tensor, task: torch.Tensor) -> torch.Tensor:
            return self.level[task].expand(user.shape)

    model = Table()
    schedule = Schedule(lr=0.05, batch_size=512, max_epochs=60, patience=60)
    estimate_ratio(model, data, schedule, seed=0, report=silent)
    assert model.level.abs().max() < 0.1  # without x, q_t and p cannot be told apart
