"""Calibration: an exact ratio has the mean 1 under p, and the interval covers it."""

import numpy as np
import pytest
from scipy.special import expit

from pipeline import calibration as calibration_module
from pipeline.auc import resample_weights
from pipeline.calibration import best_slope, calibration, log_mean_ratios
from pipeline.unmet import Met


def normal_world(users: int, gen: np.random.Generator) -> np.ndarray:
    """True log ratios of five tasks q_t = N(mu_t, 1) against p = N(0, 1), of users from p."""
    mu = np.array([[-0.8], [-0.3], [0.0], [0.4], [0.9]])
    x = gen.standard_normal(users)
    return mu * x - mu**2 / 2


def everybody(users: int) -> np.ndarray:
    return np.ones(users, np.int64)


def test_the_mean_ratio_is_weighted_by_the_base() -> None:
    scores = np.log([[1.0, 2.0, 4.0], [3.0, 1.0, 0.5]])
    found = np.exp(log_mean_ratios(scores, np.array([1, 2, 0])))
    assert found == pytest.approx([(1 + 4) / 3, (3 + 2) / 3])


def test_the_figures_are_those_of_a_loop_over_resamples() -> None:
    gen = np.random.default_rng(0)
    scores, base = gen.normal(size=(3, 40)), gen.integers(0, 4, 40)
    weights = resample_weights(40, 50, gen)
    means = [
        np.average(np.exp(scores).mean(axis=0), weights=base * weights[:, b]) for b in range(50)
    ]
    found = calibration(scores, base, weights)
    tasks = np.average(np.exp(scores), axis=1, weights=base)
    assert found["log_mean"] == pytest.approx(np.log(tasks.mean()))
    assert found["task_median"] == pytest.approx(np.log(np.median(tasks)))
    assert found["ci95_low"] == pytest.approx(np.quantile(np.log(means), 0.025))
    assert found["ci95_high"] == pytest.approx(np.quantile(np.log(means), 0.975))


def test_a_ratio_too_high_by_a_factor_shows_its_log() -> None:
    gen = np.random.default_rng(0)
    scores = normal_world(5000, gen)
    weights = resample_weights(5000, 100, gen)
    right, high = (calibration(scores + log, everybody(5000), weights) for log in (0.0, 0.5))
    assert abs(right["task_median"]) < 0.05
    for name, value in right.items():
        assert high[name] == pytest.approx(value + 0.5)


def test_the_interval_of_a_true_ratio_covers_zero_as_often_as_it_says() -> None:
    """250 populations of 200 users: 95 %, give or take three standard errors of that share."""
    gen = np.random.default_rng(0)
    covered = 0
    for _ in range(250):
        weights = resample_weights(200, 150, gen)
        found = calibration(normal_world(200, gen), everybody(200), weights)
        covered += found["ci95_low"] <= 0 <= found["ci95_high"]
    assert covered / 250 == pytest.approx(0.95, abs=3 * np.sqrt(0.95 * 0.05 / 250))


def met(scores: np.ndarray, gen: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Tasks and users of pairs that come about in proportion to the true ratios."""
    times = gen.poisson(0.3 * np.exp(scores))
    task, user = np.nonzero(times)
    return np.repeat(task, times[task, user]), np.repeat(user, times[task, user])


@pytest.mark.parametrize("size", [0.7, 1.0, 2.0])
def test_the_interval_of_the_slope_covers_it_as_often_as_it_says(size: float) -> None:
    gen = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        truth = normal_world(400, gen)
        weights = resample_weights(400, 150, gen)
        found = best_slope(size * truth, *met(truth, gen), everybody(400), weights, gen)
        covered += found["ci95_low"] <= 1 / size <= found["ci95_high"]
    assert covered / 200 == pytest.approx(0.95, abs=3 * np.sqrt(0.95 * 0.05 / 200))


def test_the_slope_is_by_the_base() -> None:
    """Of true ratios to a base that has few of those with a high x; not so to an even one."""
    gen = np.random.default_rng(0)
    x = gen.standard_normal(4000)
    base = np.where(x > 0, 1, 9)
    ratio = np.outer([0.5, 1.0], x) - np.log(base)
    task, user = met(ratio + np.log(base), gen)
    weights = resample_weights(4000, 10, gen)
    found, even = (
        best_slope(ratio, task, user, of, weights, gen)["slope"] for of in (base, everybody(4000))
    )
    assert found == pytest.approx(1, abs=0.1)
    assert abs(even - 1) > 0.2


def test_a_true_ratio_has_slope_one_by_held_out_pairs_beside_users_who_have_not_met_the_item() -> (
    None
):
    """Where x holds the visible pairs: such users are sure to be of q_t, and of no held-out pair.

    log q_t / p is then that of P(exposed | x), which is 1 for them.
    """
    gen = np.random.default_rng(0)
    weights = resample_weights(2000, 10, gen)
    slopes = []
    for _ in range(3):
        chance = expit(gen.normal(-1.5, 1, (40, 2000)))
        exposed = gen.random(chance.shape) < chance
        hidden = exposed & (gen.random(chance.shape) < 0.2)
        visible = exposed & ~hidden
        of_x = np.where(visible, 1, 0.2 * chance / (1 - 0.8 * chance))
        truth = np.log(of_x) - np.log(of_x.mean(1, keepdims=True))
        pairs, known = np.nonzero(hidden), Met.of(*np.nonzero(visible)[::-1])
        slopes.append(
            [
                best_slope(truth, *pairs, everybody(2000), weights, gen, met)["slope"]
                for met in (known, None)
            ]
        )
    matched, beside_all = np.mean(slopes, axis=0)
    assert matched == pytest.approx(1, abs=0.05)
    assert beside_all == pytest.approx(0.11, abs=0.05)


def test_a_step_of_newton_s_method_comes_near_to_fitting_a_resample_anew() -> None:
    gen = np.random.default_rng(0)
    truth = normal_world(2000, gen)
    task, user = met(truth, gen)
    weights = resample_weights(2000, 60, gen)
    found = best_slope(truth, task, user, everybody(2000), weights, np.random.default_rng(1))
    anew = []
    for times in weights.T.astype(np.int64):
        of_pair = times[user]
        again, pairs = np.repeat(np.arange(len(user)), of_pair), np.random.default_rng(1)
        fitted = best_slope(
            truth, task[again], user[again], times, np.ones((2000, 1), np.float32), pairs
        )
        anew.append(fitted["slope"])
    low, high = np.quantile(anew, (0.025, 0.975))
    assert found["ci95_low"] == pytest.approx(low, abs=0.03)
    assert found["ci95_high"] == pytest.approx(high, abs=0.03)


def test_of_too_many_pairs_some_speak_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    gen = np.random.default_rng(0)
    truth = normal_world(4000, gen)
    task, user = met(truth, gen)
    weights = resample_weights(4000, 50, gen)
    whole = best_slope(truth, task, user, everybody(4000), weights, gen)
    monkeypatch.setattr(calibration_module, "PAIRS", 2000)
    some = best_slope(truth, task, user, everybody(4000), weights, gen)
    assert len(task) > 4000
    assert some["slope"] == pytest.approx(whole["slope"], abs=0.15)
    width, of_all = (each["ci95_high"] - each["ci95_low"] for each in (some, whole))
    assert width > 1.2 * of_all


@pytest.mark.parametrize("value", [0.0, 5.0, -1e30])
def test_scores_that_tell_nothing_have_a_finite_slope(value: float) -> None:
    gen = np.random.default_rng(0)
    weights = resample_weights(20, 10, gen)
    weights[:, 0] = 0
    scores = np.full((3, 20), value, np.float32)
    task, user = np.array([0, 1, 2]), np.array([3, 4, 3])
    found = best_slope(scores, task, user, everybody(20), weights, gen)
    assert all(np.isfinite(value) for value in found.values())


def test_scores_that_are_no_log_ratios_still_give_finite_figures() -> None:
    weights = resample_weights(20, 10, np.random.default_rng(0))
    scores = np.linspace(-1e30, 1e30, 60, dtype=np.float32).reshape(3, 20)
    found = calibration(scores, np.arange(20), weights)
    assert all(np.isfinite(value) for value in found.values())


def test_a_resample_without_a_user_of_the_base_is_left_out() -> None:
    weights = np.array([[1, 0], [1, 2]], np.float32)
    found = calibration(np.log([[2.0, 9.0]]), np.array([1, 0]), weights)
    assert found["ci95_low"] == found["ci95_high"] == pytest.approx(np.log(2))
