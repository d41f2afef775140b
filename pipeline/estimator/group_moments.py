"""What is known of a group of rows by running sums: where it lies, how wide, how its columns go.

The statistic of equation 4 for groups of a table: the basis functions are the columns and their
products, whose means over a group say its mean, its spread and its correlations. Sums add up, so
more rows of a group take as long as there are more rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self, TypeVar

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from pipeline.arrays import Doubles, Ints, Singles
from pipeline.estimator.tabular import Rows

Sums = TypeVar("Sums", Ints, Doubles)
CORRELATED = 16  # columns, at most, of which every two are multiplied; of more only the squares
PRIOR = 5.0  # rows that the spread of all groups counts for, beside a group's own
TINY = 1e-6  # variance within a group of a column that does not vary; over all groups it is 1


@dataclass(frozen=True)
class GroupMoments:
    """Running sums of the rows of every group.

    Attributes:
        count: (M,) rows.
        sums: (M, d) of the columns.
        products: (M, P) of the products of two columns; see `multiplied`.
        within: (P,) covariances within groups, over all groups of the first rows. It stays, so
            that a group's statistic changes with its own rows alone.
    """

    count: Ints
    sums: Doubles
    products: Doubles
    within: Doubles

    @classmethod
    def of(cls, rows: Rows, tasks: int) -> Self:
        """The first rows, at least one of each of the groups."""
        columns = rows.x.shape[1]
        nothing = np.zeros(len(multiplied(columns)[0]))
        none = cls(np.zeros(0, np.int64), np.zeros((0, columns)), nothing[None][:0], nothing)
        first = none.add(rows, tasks)
        return replace(first, within=first._scatter().sum(0) / len(rows))

    def anew(self, rows: Rows, tasks: int) -> Self:
        """Of other groups, which may have no rows, beside the same covariances within groups."""
        return replace(
            self, count=self.count[:0], sums=self.sums[:0], products=self.products[:0]
        ).add(rows, tasks)

    def add(self, rows: Rows, tasks: int) -> Self:
        """With more rows, of `tasks` groups of which the first are those so far."""
        i, j = multiplied(rows.x.shape[1])
        x = rows.x.astype(np.float64)
        more = _sum_by_task(np.concatenate((x, x[:, i] * x[:, j]), axis=1), rows.task, tasks)
        return replace(
            self,
            count=_longer(self.count, tasks) + np.bincount(rows.task, minlength=tasks),
            sums=_longer(self.sums, tasks) + more[:, : x.shape[1]],
            products=_longer(self.products, tasks) + more[:, x.shape[1] :],
        )

    def statistic(self) -> Singles:
        """How many rows, mean, spread and correlations of every group, (M, k).

        Of the number and of the spread, a standard deviation, the logarithm is taken. The
        covariances of a group of few rows are drawn towards those of all groups.
        """
        i, j = multiplied(self.sums.shape[1])
        same = i == j
        covariance = (self._scatter() + PRIOR * self.within) / (self.count[:, None] + PRIOR)
        spread = np.sqrt(np.maximum(covariance[:, same], TINY))
        correlation = covariance[:, ~same] / (spread[:, i[~same]] * spread[:, j[~same]])
        rows = np.log1p(self.count)[:, None]
        statistic = np.concatenate((rows, self._means(), np.log(spread), correlation), axis=1)
        return statistic.astype(np.float32)

    def tensors(self) -> dict[str, Tensor]:
        """The fields as tensors, for a file."""
        return {name: torch.from_numpy(value) for name, value in vars(self).items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """The inverse of `tensors`."""
        return cls(**{name: value.numpy() for name, value in tensors.items()})

    def _means(self) -> Doubles:
        means: Doubles = self.sums / np.maximum(self.count, 1)[:, None]
        return means

    def _scatter(self) -> Doubles:
        """Sums of the products of two columns, each less its mean in the group, (M, P)."""
        i, j = multiplied(self.sums.shape[1])
        scatter: Doubles = self.products - self._means()[:, i] * self.sums[:, j]
        return scatter


def multiplied(columns: int) -> tuple[Ints, Ints]:
    """Which columns are multiplied with which, (P,) and (P,)."""
    if columns > CORRELATED:
        return np.arange(columns), np.arange(columns)
    i, j = np.triu_indices(columns)
    return i, j


def _longer(sums: Sums, tasks: int) -> Sums:
    """Sums (M, ...) with zeros for further groups, (tasks, ...)."""
    zeros = np.zeros((tasks - len(sums), *sums.shape[1:]), sums.dtype)
    return np.concatenate((sums, zeros))


def _sum_by_task(values: Doubles, task: Ints, tasks: int) -> Doubles:
    """Sums of the values (n, k) of each task, (M, k)."""
    by_task = csr_array((np.ones(len(task)), (task, np.arange(len(task)))), (tasks, len(task)))
    return np.asarray(by_task @ values)
