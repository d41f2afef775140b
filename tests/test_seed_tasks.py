"""Seed tasks: each way of choosing them against its definition, on points one can look at."""

from itertools import combinations
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from pipeline import seed_tasks
from pipeline.examples import Examples
from pipeline.pairs import Pairs
from pipeline.params import Pretrain, SeedMethod, load_params
from pipeline.seed_tasks import choose_seed_tasks, facility, farthest, kmeans_pp

ROOT = Path(__file__).parents[1]
METHODS = get_args(SeedMethod)


def wanted(**changed: object) -> Pretrain:
    return load_params(ROOT / "params.yaml", "pretrain").pretrain.model_copy(update=changed)


def clusters(each: int = 30) -> np.ndarray:
    """Four far clusters, of which the first is by far the largest: (6 each, 2)."""
    gen = np.random.default_rng(0)
    centres = np.repeat([[0, 0], [40, 0], [0, 40], [40, 40]], [3 * each, each, each, each], axis=0)
    return centres + gen.normal(0, 1, (6 * each, 2))


def examples(means: np.ndarray) -> Examples:
    """A user a task, who has its mean for a vector; the last task has an exposure of no training
    user only."""
    tasks = len(means)
    rows = np.arange(tasks)
    pairs = Pairs(rows, rows, np.zeros(tasks, bool))
    return Examples(means.astype(np.float32), pairs, rows[:-1], rows[-1:], tasks)


@pytest.mark.parametrize("method", METHODS)
def test_seed_tasks_are_distinct_rising_and_have_a_training_exposure(method: str) -> None:
    data = examples(clusters(each=2))  # 12 tasks, 11 with a training exposure
    for count in (1, 5, 11):
        params = wanted(seed_method=method, seed_tasks=count)
        chosen = choose_seed_tasks(data, params, np.random.default_rng(0))
        assert chosen.dtype == np.int64
        assert len(chosen) == count
        assert (np.diff(chosen) > 0).all()
        assert 11 not in chosen


@pytest.mark.parametrize("method", METHODS)
def test_tasks_may_coincide(method: str) -> None:
    data = examples(np.ones((9, 3)))
    params = wanted(seed_method=method, seed_tasks=8)
    chosen = choose_seed_tasks(data, params, np.random.default_rng(0))
    assert chosen.tolist() == list(range(8))


@pytest.mark.parametrize("method", METHODS)
def test_all_tasks_with_an_exposure_are_chosen_where_more_are_asked_for(method: str) -> None:
    """The twelfth has none."""
    few = wanted(seed_tasks=12, seed_method=method)
    chosen = choose_seed_tasks(examples(clusters(each=2)), few, np.random.default_rng(0))
    assert chosen.tolist() == list(range(11))


@pytest.mark.parametrize("method", ["kmeans++", "farthest", "facility"])
def test_all_but_chance_find_every_cluster(method: str) -> None:
    points = clusters()
    found = [
        {tuple(points[row].round(-1) // 40) for row in rows}
        for gen in map(np.random.default_rng, range(20))
        for rows in [seed_tasks._METHODS[method](points, 4, gen)]
    ]
    assert sum(len(one) == 4 for one in found) >= 19


def test_chance_misses_clusters() -> None:
    data = examples(clusters())
    params = wanted(seed_method="random", seed_tasks=4)
    rows = [choose_seed_tasks(data, params, np.random.default_rng(seed)) for seed in range(20)]
    assert np.mean([len({tuple(data.x[r].round(-1) // 40) for r in one}) for one in rows]) < 3.2


def test_kmeans_pp_draws_by_squared_distance() -> None:
    """From 0 the points 1 and 3 are drawn one time to nine, from 1 by 1 : 4, from 3 by 9 : 4."""
    points = np.array([[0.0], [1.0], [3.0]])
    drawn = [tuple(kmeans_pp(points, 2, np.random.default_rng(seed))) for seed in range(6000)]
    share = {pair: drawn.count(pair) / 6000 for pair in set(drawn)}
    expected = {(0, 1): 1 / 30, (0, 2): 9 / 30, (1, 0): 1 / 15, (1, 2): 4 / 15}
    expected |= {(2, 0): 9 / 39, (2, 1): 4 / 39}
    assert share == pytest.approx(expected, abs=0.02)


def test_each_farthest_row_is_the_farthest_from_those_before_it() -> None:
    points = np.random.default_rng(1).normal(size=(40, 3))
    rows = farthest(points, 12, np.random.default_rng(0))
    for n in range(1, 12):
        near = np.array([min(np.linalg.norm(p - points[r]) for r in rows[:n]) for p in points])
        assert near[rows[n]] == pytest.approx(near.max())


def total(points: np.ndarray, rows: list[int], most: float) -> float:
    """Sum of squared distances to the nearest of `rows`, none more than `most`."""
    return sum(min([most, *(((p - points[r]) ** 2).sum() for r in rows)]) for p in points)


def test_facility_adds_the_row_that_lowers_the_sum_the_most() -> None:
    points = np.random.default_rng(2).normal(size=(25, 2))
    most = ((points - points.mean(0)) ** 2).sum(1).max()
    rows = facility(points, 6, np.random.default_rng(0)).tolist()
    for n in range(6):
        sums = [total(points, [*rows[:n], candidate], most) for candidate in range(25)]
        assert rows[n] == int(np.argmin(sums))


def test_facility_is_near_the_best_there_is() -> None:
    points = np.random.default_rng(3).normal(size=(12, 2))
    most = ((points - points.mean(0)) ** 2).sum(1).max()
    saved = 12 * most - total(points, facility(points, 3, np.random.default_rng(0)).tolist(), most)
    best = max(12 * most - total(points, list(c), most) for c in combinations(range(12), 3))
    assert saved >= (1 - 1 / np.e) * best
