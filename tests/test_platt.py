"""Platt scaling: the lowest loss, found again by slow references and from known sizes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from pipeline.platt import Platt, fit_platt
from pipeline.ranks import Ranks
from tests.together import together


def pairs(seed: int = 0, n: int = 4000, size: float = 1.0) -> np.ndarray:
    """True log ratios x - 1/2 of x ~ N(1, 1) against N(0, 1), (2, n), times `size`."""
    x = np.random.default_rng(seed).standard_normal((2, n)) + np.array([[1], [0]])
    return size * (x - 0.5)


def fitted(f: np.ndarray) -> Platt:
    common = np.array([[1.0], [0.0]])
    return fit_platt(f, common, 1 - common)


def slow_fit(f: np.ndarray, common: np.ndarray, base: np.ndarray) -> np.ndarray:
    def loss(at: np.ndarray) -> float:
        z = at[0] * f + at[1]
        drawn = ((at - [1, 0]) ** 2).sum() / 2
        return float((common * np.logaddexp(0, -z) + base * np.logaddexp(0, z)).sum() + drawn)

    return minimize(loss, [1.0, 0.0], method="BFGS", options={"gtol": 1e-8}).x


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


@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.floats(-3, 3, allow_subnormal=False))
def test_it_has_the_lowest_loss_with_any_weights(seed: int, n: int, size: float) -> None:
    gen = np.random.default_rng(seed)
    f, common, base = size * gen.normal(size=n), *gen.integers(0, 4, (2, n)).astype(float)
    found = fit_platt(f, common, base)
    assert [found.slope, found.offset] == pytest.approx(slow_fit(f, common, base), abs=1e-4)


@given(st.integers(0, 2**32 - 1))
def test_a_weight_is_a_number_of_pairs(seed: int) -> None:
    gen = np.random.default_rng(seed)
    f, times = gen.normal(size=20), gen.integers(0, 3, (2, 20))
    once = fit_platt(f, *times.astype(float))
    of_each = np.repeat(f, times.sum(0))
    common = np.concatenate([np.repeat([1.0, 0.0], both) for both in times.T])
    many = fit_platt(of_each, common, 1 - common)
    assert (many.slope, many.offset) == pytest.approx((once.slope, once.offset), abs=1e-6)


@pytest.mark.parametrize(
    "f",
    [
        np.zeros((2, 50)),  # tells nothing
        np.full((2, 50), 7.0),
        np.array([[1.0], [-1.0]]) * np.ones((2, 50)),  # tells everything
        1e30 * pairs(n=50),
        1e-30 * pairs(n=50),
    ],
)
def test_there_is_a_finite_scaling_of_anything(f: np.ndarray) -> None:
    found = fitted(f)
    assert np.isfinite([found.slope, found.offset]).all()


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
