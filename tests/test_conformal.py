"""P-values keep their promise: by an exact law, and by simulation, alone and pooled."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.conformal import Calibration, fewest

ALPHAS = (0.01, 0.05, 0.1, 0.3)


def alone(scores: list[float]) -> Calibration:
    """One task, whatever the number of its scores."""
    return Calibration.of(
        np.array(scores, float), np.zeros(len(scores), np.int64), np.array([1]), least=1
    )


def test_a_p_value_counts_the_scores_that_are_no_higher() -> None:
    found = alone([3.0, 1.0, 2.0, 2.0]).p_values(0, np.array([0.5, 1.0, 2.0, 2.5, 9.0]))
    assert found.tolist() == [1 / 5, 2 / 5, 4 / 5, 4 / 5, 1]


@given(st.lists(st.integers(0, 9), min_size=2, max_size=30))
def test_of_any_scores_at_most_k_are_among_the_k_lowest(scores: list[int]) -> None:
    """Each in turn against the others: P(p <= k / n) <= k / n whatever the law, ties included."""
    n = len(scores)
    p = [
        alone([float(s) for s in scores[:i] + scores[i + 1 :]]).p_values(0, np.array([scores[i]]))
        for i in range(n)
    ]
    for k in range(1, n + 1):
        assert np.count_nonzero(np.concatenate(p) <= k / n) <= k


def shares(
    calibration: Calibration, task: np.ndarray, scores: np.ndarray
) -> dict[float, np.ndarray]:
    """For every alpha, which of the test pairs are called fresh."""
    p = np.empty(len(scores))
    for t in np.unique(task):
        p[task == t] = calibration.p_values(t, scores[task == t])
    return {alpha: p <= alpha for alpha in ALPHAS}


def draw(task: np.ndarray, gen: np.random.Generator) -> np.ndarray:
    """Scores of audience members; tasks differ in place and spread, by their number."""
    return np.sin(task) + (1 + task % 3) * gen.standard_normal(len(task)) ** 3


def test_tasks_that_stand_alone_each_keep_the_promise() -> None:
    """300 tasks of 40 scores; 200 new members of each. Each task's own rate is Beta distributed
    around at most alpha, so their mean is within three standard errors of it."""
    gen = np.random.default_rng(0)
    tasks, n = 300, 40
    task = np.repeat(np.arange(tasks), n)
    calibration = Calibration.of(draw(task, gen), task, np.arange(tasks), least=19)
    assert calibration.own.all()
    test = np.repeat(np.arange(tasks), 200)
    for alpha, fresh in shares(calibration, test, draw(test, gen)).items():
        rate = fresh.reshape(tasks, -1).mean(axis=1)
        error = 3 * rate.std() / np.sqrt(tasks)
        assert rate.mean() <= alpha + error
        assert rate.mean() >= alpha - 1 / (n + 1) - error  # not by never calling anybody fresh


def test_pooled_tasks_keep_the_promise_over_their_pool() -> None:
    """2,000 tasks of 1 to 9 scores, in pools of 200; new members come as the old ones came."""
    gen = np.random.default_rng(1)
    size = gen.permutation(2000)
    task = np.repeat(np.arange(2000), gen.integers(1, 10, 2000))
    calibration = Calibration.of(draw(task, gen), task, size, least=19, pool=200)
    assert not calibration.own.any()
    test = np.repeat(task, 10)
    for alpha, fresh in shares(calibration, test, draw(test, gen)).items():
        pool = calibration.group[test]
        rate = np.bincount(pool, fresh) / np.bincount(pool)
        error = 3 * rate.std() / np.sqrt(len(rate))
        assert alpha - 0.005 - error <= rate.mean() <= alpha + error


def test_tasks_with_few_scores_are_pooled_with_those_of_like_size() -> None:
    count = np.array([30, 2, 3, 1, 2, 25, 4])
    size = np.array([9, 10, 300, 20, 400, 15, 500])
    task = np.repeat(np.arange(7), count)
    scores = 100.0 * task + np.arange(len(task))
    found = Calibration.of(scores, task, size, least=3, pool=1)  # no pool is under twice `least`
    assert found.own.tolist() == [True, False, True, False, False, True, True]
    found = Calibration.of(scores, task, size, least=5, pool=1)
    assert found.own.tolist() == [True, False, False, False, False, True, False]
    pools = {group: np.flatnonzero(found.group == group).tolist() for group in found.group}
    assert sorted(pools.values()) == [[0], [1, 2, 3, 4, 6], [5]]
    found = Calibration.of(scores, task, size, least=5, pool=10)
    assert found.count.tolist() == [30, 12, 12, 12, 12, 25, 12]
    assert found.of_task(3).tolist() == sorted(scores[np.isin(task, [1, 2, 3, 4, 6])])
    assert found.of_task(5).tolist() == scores[task == 5].tolist()


def test_pools_are_cut_by_size_and_what_is_left_over_joins_the_last() -> None:
    """Six tasks of 5 scores in pools of 10; a seventh task is too little for a pool of its own."""
    size = np.array([60, 10, 50, 20, 40, 30, 70])
    task = np.repeat(np.arange(7), 5)
    found = Calibration.of(np.zeros(35), task, size, least=6, pool=12)
    by_size = found.group[np.argsort(size)]
    assert by_size.tolist() == [0, 0, 0, 1, 1, 1, 1]


def test_a_few_tasks_without_enough_scores_are_compared_with_all_scores() -> None:
    task = np.repeat([0, 1, 2], [30, 40, 5])
    scores = np.random.default_rng(0).standard_normal(75)
    found = Calibration.of(scores, task, np.array([30, 40, 5, 9]), least=19)
    assert found.own.tolist() == [True, True, False, False]
    assert found.count.tolist() == [30, 40, 75, 75]
    assert found.of_task(3).tolist() == sorted(scores)
    assert found.of_task(1).tolist() == sorted(scores[task == 1])


@pytest.mark.parametrize("n", [0, 1, 18, 19, 20, 39, 100])
@pytest.mark.parametrize("alpha", [*ALPHAS, 1 / 3])
def test_a_score_under_the_threshold_is_an_alarm_and_no_other(n: int, alpha: float) -> None:
    gen = np.random.default_rng(n)
    calibration = alone(gen.integers(0, 12, n).tolist())
    scores = np.arange(-1, 13, 0.5)
    alarm = calibration.p_values(0, scores) <= alpha
    assert (scores < calibration.thresholds(alpha)[0]).tolist() == alarm.tolist()


def test_the_fewest_scores_can_just_give_an_alarm() -> None:
    for alpha in (0.001, 0.01, 0.05, 0.1, 0.3, 0.5):
        n = fewest(alpha)
        assert 1 / (n + 1) <= alpha + 1e-12
        assert n == 1 or 1 / n > alpha


def test_without_any_score_nothing_is_fresh() -> None:
    empty = np.array([], np.int64)
    nobody = Calibration.of(empty.astype(float), empty, np.array([5, 7]), least=19)
    assert nobody.p_values(1, np.array([-1e9, 0.0])).tolist() == [1, 1]
    assert nobody.thresholds(0.5).tolist() == [-np.inf, -np.inf]
    assert nobody.count.tolist() == [0, 0]
