"""Running sums of groups, against numpy on each group's own rows."""

import numpy as np
import pytest

from pipeline.estimator.group_moments import CORRELATED, PRIOR, GroupMoments
from pipeline.estimator.tabular import Rows


def drawn(n: int, columns: int, groups: int, seed: int = 0) -> Rows:
    """Correlated rows; group t has its own mean and spread."""
    gen = np.random.default_rng(seed)
    task = np.concatenate((np.arange(groups), gen.integers(groups, size=n - groups)))
    x = gen.standard_normal((n, columns)) @ gen.standard_normal((columns, columns))
    return Rows((x * (1 + task[:, None]) + task[:, None]).astype(np.float32), task)


def joined(*parts: Rows) -> Rows:
    return parts[0] + parts[1]


def test_the_statistic_is_number_mean_spread_and_correlations_of_each_groups_rows() -> None:
    rows = drawn(400, 3, 4)
    each = [rows.x[rows.task == t].astype(float) for t in range(4)]
    within = sum((np.cov(x.T, bias=True) * len(x) for x in each), np.zeros((3, 3))) / 400
    for x, found in zip(each, GroupMoments.of(rows, 4).statistic(), strict=True):
        n = len(x)
        covariance = (n * np.cov(x.T, bias=True) + PRIOR * within) / (n + PRIOR)
        spread = np.sqrt(np.diag(covariance))
        correlation = (covariance / np.outer(spread, spread))[np.triu_indices(3, 1)]
        expected = np.concatenate(([np.log(n + 1)], x.mean(0), np.log(spread), correlation))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_rows_in_two_parts_are_counted_as_rows_at_once() -> None:
    first, more = drawn(100, 3, 4), drawn(80, 3, 6, seed=1)
    grown = GroupMoments.of(first, 4).add(more, 6)
    at_once = GroupMoments.of(joined(first, more), 6)
    for name in ("count", "sums", "products"):
        np.testing.assert_allclose(getattr(grown, name), getattr(at_once, name), rtol=1e-12)


def test_a_group_changes_with_its_own_rows_alone() -> None:
    before = GroupMoments.of(drawn(100, 3, 4), 4)
    of_last = Rows(np.full((5, 3), 7, np.float32), np.full(5, 3))
    after = before.add(of_last, 4)
    assert (after.statistic()[:3] == before.statistic()[:3]).all()
    assert (after.statistic()[3] != before.statistic()[3]).all()


def test_a_group_of_one_row_is_as_wide_as_the_groups_are() -> None:
    rows = drawn(300, 2, 3)
    alone = GroupMoments.of(rows, 3).add(Rows(np.zeros((1, 2), np.float32), np.array([3])), 4)
    wide = np.sqrt(alone.within[[0, 2]] * PRIOR / (PRIOR + 1))
    np.testing.assert_allclose(np.exp(alone.statistic()[3, 3:5]), wide, rtol=1e-5)


@pytest.mark.parametrize(("columns", "width"), [(1, 3), (3, 10), (CORRELATED + 1, 35)])
def test_of_many_columns_only_the_squares_are_kept(columns: int, width: int) -> None:
    assert GroupMoments.of(drawn(60, columns, 2), 2).statistic().shape == (2, width)


def test_a_column_that_does_not_vary_gives_finite_numbers() -> None:
    rows = Rows(np.ones((6, 2), np.float32), np.array([0, 0, 0, 1, 1, 1]))
    assert np.isfinite(GroupMoments.of(rows, 2).statistic()).all()
