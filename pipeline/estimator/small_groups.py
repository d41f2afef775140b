"""Groups of few rows, cut from larger ones, to learn how roughly few rows place a group.

A group that has just come is placed by a handful of rows, and its true mean and spread may well be
others. A network that has only seen groups placed by many rows trusts the place too far, and calls
half of the newcomer's rows outliers. So every group is there several times: placed by all its rows,
and by a few of them; what is learned from are rows that did not place it.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.arrays import Bools, Ints, Singles
from pipeline.estimator.group_moments import GroupMoments
from pipeline.estimator.tabular import Rows

COPIES = 3  # of each group, of fewer rows
MANY = 30  # rows that place a group so well that they may be learned from themselves


@dataclass(frozen=True)
class Variants:
    """All groups, and copies of them that few rows place.

    Attributes:
        statistic: ((1 + COPIES) M, k) of the M groups, then of their first copies, and so on.
        train: rows to learn from, each in its group or in one of its copies.
        valid: rows to stop by, likewise.
    """

    statistic: Singles
    train: Rows
    valid: Rows

    @classmethod
    def of(
        cls, train: Rows, valid: Rows, moments: GroupMoments, gen: np.random.Generator
    ) -> "Variants":
        """Cut copies from the rows to learn from.

        Args:
            train: rows to learn from.
            valid: rows to stop by.
            moments: of the groups, by all the rows they ever had.
            gen: of the rows that place a copy, and of where a row is learned from.
        """
        tasks = len(moments.count)
        if tasks == 1:  # from which nothing is learned of how groups differ
            return cls(moments.statistic(), train, valid)
        places = np.stack([_few(train.task, tasks, gen) for _ in range(COPIES)], 1)  # (n, COPIES)
        row, copy = np.nonzero(places)
        placing = Rows(train.x[row], train.task[row] + tasks * copy)
        copies = moments.anew(placing, tasks * COPIES)
        usable = np.column_stack((moments.count[train.task] >= MANY, ~places))
        usable[:, 0] |= ~usable.any(1)
        anywhere = np.ones((len(valid), 1 + COPIES), bool)
        return cls(
            np.concatenate((moments.statistic(), copies.statistic())),
            _scatter(train, usable, tasks, gen),
            _scatter(valid, anywhere, tasks, gen),
        )


def _few(task: Ints, tasks: int, gen: np.random.Generator) -> Bools:
    """Choose from each group at random from one to all of its rows, uniformly in the logarithm."""
    order = np.lexsort((gen.random(len(task)), task))
    count = np.bincount(task, minlength=tasks)
    wanted = np.exp(gen.random(tasks) * np.log(count + 1)).astype(np.int64)
    place = np.arange(len(task)) - np.repeat(np.cumsum(count) - count, count)  # within the group
    chosen = np.empty(len(task), bool)
    chosen[order] = place < np.repeat(wanted, count)
    return chosen


def _scatter(rows: Rows, usable: Bools, tasks: int, gen: np.random.Generator) -> Rows:
    """Put each row into its group or a copy, whichever of `usable` (n, 1 + COPIES), at random."""
    variant = np.argmax(usable * (1 - gen.random(usable.shape)), axis=1)
    return Rows(rows.x, rows.task + tasks * variant)
