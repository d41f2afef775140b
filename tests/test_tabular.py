"""Rows of groups: how they are divided, kept and surrounded, and the ratio learned from them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.estimator.tabular import (
    FAR,
    NEAR,
    Kept,
    Parts,
    Reservoir,
    Rows,
    divide,
    learn,
    log_ratios,
    mixture_log_ratios,
    smear,
)
from pipeline.models.ratio import RatioNet
from pipeline.models.weights import draw_layers
from pipeline.params import Ratio

CPU = torch.device("cpu")


def rows_of(count: list[int]) -> Rows:
    """Rows whose one column is their number; task t has count[t] of them."""
    n = sum(count)
    return Rows(np.arange(n, dtype=np.float32)[:, None], np.repeat(np.arange(len(count)), count))


def drawn(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def wanted(*, hidden: list[int], batch_size: int, max_epochs: int) -> Ratio:
    return Ratio(
        base="exposures",
        hidden=hidden,
        dropout=[0.0],
        freeze_e=False,
        lr=0.01,
        batch_size=batch_size,
        max_epochs=max_epochs,
        patience=5,
    )


def test_every_row_is_in_one_part_and_every_task_keeps_a_row_to_learn_from() -> None:
    rows = rows_of([1, 2, 3, 40, 1, 5])
    for seed in range(20):
        parts = divide(rows, valid=0.4, calibration=0.5, gen=drawn(seed))
        together = np.concatenate([p.x[:, 0] for p in vars(parts).values()])
        assert sorted(together.tolist()) == rows.x[:, 0].tolist()
        assert set(parts.train.task.tolist()) == set(range(6))
        for part in vars(parts).values():
            assert (rows.task[part.x[:, 0].astype(int)] == part.task).all()


def test_tasks_of_few_rows_give_their_share_together() -> None:
    parts = divide(rows_of([4] * 2000), valid=0.1, calibration=0.2, gen=drawn())
    assert len(parts.valid) / 8000 == pytest.approx(0.1, abs=0.01)
    assert len(parts.calibration) / 8000 == pytest.approx(0.2, abs=0.01)
    for seed in range(20):
        assert len(divide(rows_of([2, 1]), valid=0.1, calibration=0.2, gen=drawn(seed)).valid) == 1
    whole = divide(rows_of([1000]), valid=0.1, calibration=0.2, gen=drawn())
    assert abs(len(whole.valid) - 100) <= 1
    assert abs(len(whole.calibration) - 200) <= 1


def test_of_a_known_task_every_row_may_be_kept_and_of_a_new_one_not() -> None:
    """One row of each at a time, as a stream brings them."""
    gen, rows = drawn(), rows_of([1, 1])
    made = [divide(rows, valid=0.1, calibration=0.2, gen=gen, known=1) for _ in range(2000)]
    assert all(1 in parts.train.task for parts in made)
    valid, calibration = (
        sum(len(getattr(parts, name)) for parts in made) / 2000 for name in ("valid", "calibration")
    )
    assert valid == pytest.approx(0.1, abs=0.03)
    assert calibration == pytest.approx(0.2, abs=0.05)


def test_of_more_rows_than_are_learned_from_all_others_are_to_calibrate_on() -> None:
    parts = divide(rows_of([50, 6, 1]), valid=0.1, calibration=0.2, gen=drawn(), most=5)
    counts = [np.bincount(part.task, minlength=3) for part in vars(parts).values()]
    train, _, calibration = counts
    assert sum(counts).tolist() == [50, 6, 1]
    assert train[0] == 5
    assert calibration[0] == 40
    assert 1 <= train[1] <= 5
    assert train[2] == 1


def test_a_reservoir_holds_all_rows_until_it_is_full_and_then_a_uniform_sample() -> None:
    nothing = rows_of([0])
    first, second = rows_of([60]), replace(rows_of([60]), task=np.ones(60, np.int64))
    half_full = Reservoir(nothing, 0, 80).add(first, drawn())
    assert half_full.rows.x.tolist() == first.x.tolist()
    shares, chosen = [], np.zeros(60)
    for seed in range(300):
        full = half_full.add(second, drawn(seed))
        assert (len(full.rows), full.seen) == (80, 120)
        assert len(np.unique(full.rows.x[:, 0] + 1000 * full.rows.task)) == 80
        shares.append(full.rows.task.mean())
        chosen[full.rows.x[full.rows.task == 1, 0].astype(int)] += 1
    assert np.mean(shares) == pytest.approx(0.5, abs=0.02)
    hypergeometric = 80 / 4 * (120 - 80) / (120 - 1)
    assert np.var(np.multiply(80, shares)) == pytest.approx(hypergeometric, rel=0.25)
    assert chosen.min() > 0.4 * chosen.mean()
    much_later = Reservoir(full.rows, 10_000, 80).add(second, drawn())
    assert 0 <= (much_later.rows.task == 1).sum() - (full.rows.task == 1).sum() <= 5


def test_what_is_kept_of_many_calls_is_bounded_but_for_the_calibration() -> None:
    kept = Kept.nothing(1, 50)
    for _ in range(6):
        kept = kept.add(Parts(rows_of([30]), rows_of([4]), rows_of([10])), drawn())
    assert (len(kept.train.rows), len(kept.valid.rows), len(kept.calibration)) == (50, 5, 60)


def test_background_moves_half_of_the_columns_near_and_far() -> None:
    x = drawn(1).standard_normal((50, 8)).astype(np.float32)
    made = smear(x, 4000, drawn())
    nearest = x[(made[:, None] == x).sum(-1).argmax(1)]  # some column of nearly every row is kept
    moved = made != nearest
    assert moved.mean() == pytest.approx(0.5, abs=0.02)
    step = np.log(np.abs(made - nearest)[moved])
    of_normal = -(np.euler_gamma + np.log(2)) / 2  # E log |N(0, 1)|
    assert step.mean() == pytest.approx(np.log(NEAR * FAR) / 2 + of_normal, abs=0.05)


def test_the_ratio_of_two_groups_is_the_analytic_one_where_there_are_rows() -> None:
    """q_t = N(+-1, 1), p their mean; without background."""
    gen = drawn()
    task = np.repeat([0, 1], 4000)
    rows = Rows((gen.standard_normal((8000, 1)) + 2 * task[:, None] - 1).astype(np.float32), task)
    parts = divide(rows, valid=0.2, calibration=0.0, gen=gen)
    net = RatioNet(x_dim=1, task_dim=1, hidden=[32], dropout=[0.0])
    draw_layers(net, torch.Generator().manual_seed(0))
    params = wanted(hidden=[32], batch_size=512, max_epochs=15)
    e = np.array([[-1.0], [1.0]], np.float32)
    history = learn(
        net, e, parts.train, parts.valid, background=0.0, params=params, gen=gen, device=CPU
    )
    grid = np.linspace(-1.4, 1.4, 11)[:, None]
    for t, mean in enumerate((-1, 1)):
        own, other = (np.exp(-((grid[:, 0] - m) ** 2) / 2) for m in (mean, -mean))
        found = log_ratios(net, e, grid, np.full(11, t))
        np.testing.assert_allclose(found, np.log(own / ((own + other) / 2)), atol=0.2)
    assert min(row["valid_loss"] for row in history) < 1.2


def test_few_rows_are_there_repeatedly_each_time_with_another_negative(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """80 rows, 52 times each: 4,160 pairs in 16 batches, though 1,024 are allowed."""
    sizes: list[int] = []
    forward = RatioNet.loss_of_pairs

    def noted(net: RatioNet, *tensors: torch.Tensor) -> torch.Tensor:
        if net.training:
            sizes.append(tensors[-1].numel())
        return forward(net, *tensors)

    monkeypatch.setattr(RatioNet, "loss_of_pairs", noted)
    rows, e = rows_of([40, 40]), np.zeros((2, 1), np.float32)
    net = RatioNet(x_dim=1, task_dim=1, hidden=[4], dropout=[0.0])
    params = wanted(hidden=[4], batch_size=1024, max_epochs=1)
    learn(net, e, rows, rows, background=0.1, params=params, gen=drawn(), device=CPU)
    assert sizes == [260] * 16


def test_a_mixture_is_the_weighted_mean_ratio_of_its_tasks() -> None:
    net = RatioNet(x_dim=2, task_dim=3, hidden=[8], dropout=[0.0])
    gen = drawn()
    e = gen.standard_normal((5, 3)).astype(np.float32)
    x, share = gen.standard_normal((7, 2)), np.array([0.1, 0.2, 0.3, 0.25, 0.15])
    each = np.stack([log_ratios(net, e, x, np.full(7, t)) for t in range(5)])
    expected = np.log(share @ np.exp(each))
    np.testing.assert_allclose(mixture_log_ratios(net, e, x, share), expected, rtol=1e-12)
