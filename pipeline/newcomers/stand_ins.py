"""Trained tasks in the place of those that came later: placed anew, by as few exposures.

A task that few exposures place lies a little beside where it should, and its audience scores lower
than that of a trained one. Who is fresh there is told by scores under tasks that are as far off:
trained ones, each placed by as few users of its own, drawn at random.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.sparse import csr_array

from pipeline.arrays import Ints, Singles
from pipeline.newcomers.placement import FEWEST, Placement
from pipeline.newcomers.running import Running
from pipeline.pairs import ids_of, in_rows, shown, task_pairs


@dataclass(frozen=True)
class Level:
    """Stand-ins that equally many exposures place."""

    of: Ints  # rows of the tasks for which they stand in
    task: Ints  # (m,) their own rows, rising: trained tasks that have so many
    e: Singles  # (m, e_dim) where they are placed


@dataclass(frozen=True)
class StandIns:
    """Trained tasks, to be placed by as few exposures as others have.

    Attributes:
        wanted: (M,) exposures of each task that came later; 0 for a trained one.
        task: (E,) trained tasks' rows, rising, of exposures of users who trained.
        user: (E,) their rows, in random order for each task.
        place: (E,) of each exposure among its task's.
        x: (U, x_dim) vectors of the users.
        placement: as of tasks that came later.
    """

    wanted: Ints
    task: Ints
    user: Ints
    place: Ints
    x: Singles
    placement: Placement

    @classmethod
    def of(cls, now: Running) -> Self:
        """Of the tasks that came later, by what is known now."""
        pairs = task_pairs(shown(now.exposures), now.features, now.tasks)
        learned = np.searchsorted(ids_of(now.features, "user_id"), now.learned)
        pairs = pairs.where(in_rows(pairs.user, learned, now.features.num_rows))
        pairs = pairs.where(~now.later[pairs.task])
        order = np.lexsort((np.random.default_rng(0).random(len(pairs)), pairs.task))
        task = pairs.task[order]
        place = np.arange(len(task)) - np.searchsorted(task, task)
        wanted = np.where(now.later, now.tasks.column("train_exposures").to_numpy(), 0)
        return cls(wanted, task, pairs.user[order], place, now.x, now.placement)

    def levels(self, pairs: Ints, least: int) -> Iterator[Level]:
        """One after the other, of ever more exposures: 5, 10, 20 ..., as the tasks have.

        Args:
            pairs: (M,) how many pairs of each trained task may be judged under its stand-in.
            least: a level with fewer takes half as many exposures, which more tasks have.
        """
        have = np.bincount(self.task, minlength=len(self.wanted))
        level = np.where(self.wanted > 0, _rounded_down(self.wanted), 0)
        for n in np.unique(level)[::-1].tolist():
            fewer = n
            while fewer > FEWEST and pairs[have >= fewer].sum() < least:
                fewer //= 2
            level[level == n] = fewer
        for n in np.unique(level[level > 0]).tolist():
            some = (self.place < n) & (have >= n)[self.task]
            task, row = np.unique(self.task[some], return_inverse=True)
            ones = np.ones(len(row))
            sums = csr_array((ones, (row, self.user[some])), (len(task), len(self.x))) @ self.x
            yield Level(np.flatnonzero(level == n), task, self.placement.apply(sums / n))


def _rounded_down(exposures: Ints) -> Ints:
    """To 5, 10, 20 ..., which many share."""
    doublings = np.floor(np.log2(np.maximum(exposures, FEWEST) / FEWEST) + 1e-9)
    return FEWEST << doublings.astype(np.int64)
