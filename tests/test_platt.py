"""Platt scaling: the lowest loss, found again by slow references and from known sizes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from pipeline.platt import UNSCALED, Platt, fit_platt
from pipeline.ranks import Ranks
from tests.together import together


def pairs(seed: int = 0, n: int = 4000, size: float = 1.0) -> np.ndarray:
    """True log ratios x - 1/2 of x ~ N(1, 1) against N(0, 1), (2, n), times `size`."""
    x = np.random.default_rng(seed).standard_normal((2, n)) + np.array([[1], [0]])
    return size * (x - 0.5)


def fitted(f: np.ndarray) -> Platt:
    common = np.array([[1.0], [0.0]])
    return fit_platt(f, common, 1 - common)


def mean_loss(f: np.ndarray, platt: Platt) -> float:
    z = platt.slope * f + platt.offset
    return float((np.logaddexp(0, -z[0]) + np.logaddexp(0, z[1])).mean())


def slow_fit(f: np.ndarray, common: np.ndarray, base: np.ndarray) -> Platt:
    mean = np.average(f, weights=common + base)
    spread = np.sqrt(np.average((f - mean) ** 2, weights=common + base)) or 1
    u = (f - mean) / spread

    def loss(at: np.ndarray) -> float:
        z = at[0] * u + at[1]
        prior = at @ at / 2
        return float((common * np.logaddexp(0, -z) + base * np.logaddexp(0, z)).sum() + prior)

    at = minimize(loss, [0.0, 0.0], method="BFGS", options={"gtol": 1e-8}).x
    return Platt(at[0] / spread, at[1] - at[0] * mean / spread)


@pytest.mark.parametrize("size", [0.4, 1.0, 2.5])
def test_it_undoes_what_a_log_ratio_was_multiplied_with(size: float) -> None:
    found = fitted(pairs(n=200_000, size=size) + 0.3)
    assert found.slope == pytest.approx(1 / size, rel=0.02)
    assert found.offset == pytest.approx(-0.3 / size, abs=0.02)


def test_of_many_pairs_it_is_a_logistic_regression() -> None:
    f = pairs(n=20_000, size=0.3)
    taught = LogisticRegression(C=np.inf, tol=1e-10).fit(
        f.reshape(-1, 1), np.repeat([1, 0], 20_000)
    )
    found = fitted(f)
    assert found.slope == pytest.approx(taught.coef_[0, 0], rel=2e-3)
    assert found.offset == pytest.approx(taught.intercept_[0], abs=2e-3)


@given(st.integers(0, 2**32 - 1), st.integers(2, 30))
def test_it_has_the_lowest_loss_with_any_weights(seed: int, n: int) -> None:
    gen = np.random.default_rng(seed)
    size, moved = 10 ** gen.uniform(-2, 2), gen.uniform(-9, 9)
    f, common, base = size * gen.normal(size=n) + moved, *gen.integers(0, 4, (2, n)).astype(float)
    common[0] = base[1] = 1
    found, slow = fit_platt(f, common, base), slow_fit(f, common, base)
    assert found.slope * size == pytest.approx(slow.slope * size, abs=1e-4)
    assert found.offset == pytest.approx(slow.offset, abs=1e-3 * (1 + abs(moved) / size))


def test_it_is_found_where_a_step_of_newton_s_method_goes_too_far() -> None:
    f = np.array([-2.8, 0.9, 0.8])
    common = np.array([2.0, 999_592, 406])
    base = np.array([979_496.0, 39, 20_465])
    found, slow = fit_platt(f, common, base), slow_fit(f, common, base)
    assert found.slope == pytest.approx(slow.slope, rel=1e-3)
    assert found.offset == pytest.approx(slow.offset, rel=1e-3)


@given(st.integers(0, 2**32 - 1))
def test_a_weight_is_a_number_of_pairs(seed: int) -> None:
    gen = np.random.default_rng(seed)
    f, times = gen.normal(size=20), gen.integers(0, 3, (2, 20))
    once = fit_platt(f, *times.astype(float))
    of_each = np.repeat(f, times.sum(0))
    common = np.concatenate([np.repeat([1.0, 0.0], both) for both in times.T])
    many = fit_platt(of_each, common, 1 - common)
    assert (many.slope, many.offset) == pytest.approx((once.slope, once.offset), abs=1e-6)


@pytest.mark.parametrize("f", [np.zeros((2, 50)), np.full((2, 50), 7.0), np.full((2, 50), -1e30)])
def test_where_f_tells_nothing_the_scaled_one_is_chance(f: np.ndarray) -> None:
    assert mean_loss(f, fitted(f)) == pytest.approx(2 * np.log(2))


@pytest.mark.parametrize(
    "f",
    [
        np.array([[1.0], [-1.0]]) * np.ones((2, 50)),  # tells everything
        1e30 * pairs(n=400),
        1e-30 * pairs(n=400),
        5 * pairs(n=400) - 1000,
        5 * pairs(n=400) + 10_000,
    ],
)
def test_it_is_found_from_afar(f: np.ndarray) -> None:
    assert mean_loss(f, fitted(f)) < 1.25


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_is_not_scaled(value: float) -> None:
    f = pairs(n=20_000)
    f[1, 12_345] = value
    assert fitted(f) == UNSCALED


def test_nothing_is_scaled_by_no_pairs() -> None:
    assert fitted(np.empty((2, 0))) == UNSCALED


@pytest.mark.parametrize("size", [0.1, 1.0, 10.0])
def test_few_pairs_find_a_slope_whatever_the_size(size: float) -> None:
    """Over 200 draws of 200 pairs: less than a tenth off the right one on average."""
    slopes = [size * fitted(pairs(seed, n=200, size=size)).slope for seed in range(200)]
    assert np.mean(slopes) == pytest.approx(1, abs=0.1)


def test_a_ratio_that_runs_the_wrong_way_has_a_slope_below_0() -> None:
    assert fitted(-pairs()).slope == pytest.approx(-1, abs=0.1)


@pytest.mark.parametrize("size", [2, 3])
def test_processes_that_hold_different_pairs_find_what_one_does(size: int) -> None:
    f = pairs(n=301, size=0.4).T

    def find(ranks: Ranks) -> Platt:
        own = ranks.own(f)[: 0 if ranks.rank == 2 else None]  # one may hold none
        common = np.tile([1.0, 0.0], (len(own), 1))
        return fit_platt(own, common, 1 - common, ranks.sums)

    found, *others = together(size, find)
    assert others == [found] * (size - 1)
    held = f if size == 2 else f[np.arange(301) % 3 < 2]
    alone = fitted(held.T)
    assert (found.slope, found.offset) == pytest.approx((alone.slope, alone.offset), abs=1e-9)
