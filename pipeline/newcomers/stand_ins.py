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
from pipeline.newcomers.placement import Placement
from pipeline.newcomers.running import Running
from pipeline.newcomers.update import FEWEST
from pipeline.pairs import ids_of, in_rows, shown, task_pairs


@dataclass(frozen=True)
class Level:
    """Stand-ins that equally many exposures place."""

    exposures: int
    of: Ints  # rows of the tasks for which they stand in
    task: Ints  # (m,) their own rows, rising: trained tasks with so many exposures
    e: Singles  # (m, e_dim) where they are placed


@dataclass(frozen=True)
class StandIns:
    """Trained tasks, to be placed by as few exposures as others have.

    Attributes:
        level: (M,) by how many exposures stand-ins of a task are placed; 0 for a trained one.
        task: (E,) trained tasks' rows, rising, of exposures of users who trained.
        user: (E,) their rows, in random order for each task.
        place: (E,) of each exposure among its task's.
        x: (U, x_dim) vectors of the users.
        placement: as of tasks that came later.
    """

    level: Ints
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
        size = now.tasks.column("train_exposures").to_numpy()
        level = np.where(now.later, _level(size, int(place.max(initial=0)) + 1), 0)
        return cls(level, task, pairs.user[order], place, now.x, now.placement)

    def levels(self) -> Iterator[Level]:
        """Of every number of exposures, rising."""
        for n in np.unique(self.level[self.level > 0]).tolist():
            some = self.place < n
            task, row, count = np.unique(self.task[some], return_inverse=True, return_counts=True)
            ones = np.ones(len(row))
            sums = csr_array((ones, (row, self.user[some])), (len(task), len(self.x))) @ self.x
            whole = count == n
            e = self.placement.apply(sums[whole] / n)
            yield Level(n, np.flatnonzero(self.level == n), task[whole], e)


def _level(exposures: Ints, most: int) -> Ints:
    """The number of exposures, or a smaller one that many share: 5, 10, 20 ... up to `most`."""
    steps = np.log2(np.minimum(np.maximum(exposures, FEWEST), most) / FEWEST)
    return FEWEST << np.maximum(np.floor(steps + 1e-9), 0).astype(np.int64)
