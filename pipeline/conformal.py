"""Conformal p-values: how rare a score this low is among those who belong.

Scores are log ratios: HIGH = common, LOW = fresh. A p-value says which share of the task's own
audience would score as low, counted on a calibration sample that nothing has learned from:

    p = (1 + number of calibration scores <= s) / (1 + number of calibration scores)

If the scored user is one more draw from where the calibration sample came from, then P(p <= a) <= a
for every a (Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random World", 2005): calling
everybody with p <= alpha fresh is a false alarm for at most a share alpha of the audience.

A task with enough calibration scores stands by itself. The others are pooled with tasks of like
size, and the promise then holds over the pool: over its audiences together, not for each of them.
Where even together they have too few, they are compared with the scores of all tasks. Raw log
ratios are pooled: they are comparable from task to task, and on MovieLens 1M they held the promise
better, task by task, than scores standardised by the task's audience or by all users.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil
from typing import Self

import numpy as np

from pipeline.arrays import Bools, Doubles, Floats, Ints

POOL = 500  # calibration scores of a pool


def fewest(alpha: float) -> int:
    """The fewest calibration scores with which a p-value can be as small as `alpha`.

    Example:
        >>> fewest(0.05)
        19
    """
    return max(ceil(1 / alpha - 1e-9) - 1, 1)


def thinned(n: int, most: int) -> Ints:
    """Places of at most `most` of n calibration scores, evenly chosen.

    Example:
        >>> thinned(9, 3).tolist()
        [0, 4, 8]
    """
    return np.linspace(0, n - 1, min(n, most)).astype(np.int64)


@dataclass(frozen=True)
class Calibration:
    """Calibration scores of every task, its own or those of its pool.

    Attributes:
        group: (M,) whose scores count for each task: a number of a task or of a pool.
        own: (M,) whether they are the task's own alone.
        scores: (N,) all calibration scores, by group, rising within it.
        start: (G + 1,) where each group begins in `scores`.
    """

    group: Ints
    own: Bools
    scores: Doubles
    start: Ints

    @classmethod
    def of(cls, scores: Floats, task: Ints, size: Ints, *, least: int, pool: int = POOL) -> Self:
        """Sort calibration scores into tasks that stand alone and pools of tasks of like size.

        Args:
            scores: (N,) scores of pairs that nothing has learned from.
            task: (N,) the task of each of them.
            size: (M,) number of exposures that each task was learned from.
            least: a task with fewer scores is pooled.
            pool: a pool has about so many scores, if the pooled tasks have them, and no fewer than
                `least`.
        """
        count = np.bincount(task, minlength=len(size))
        own = count >= least
        group = _groups(count, own, size, max(pool, 2 * least))
        of_score = group[task]
        if not own.all() and count[~own].sum() < least:
            borrowed = own[task]
            scores = np.concatenate((scores, scores[borrowed]))
            of_score = np.append(of_score, np.full(borrowed.sum(), group.max()))
        order = np.lexsort((scores, of_score))
        start = np.searchsorted(of_score[order], np.arange(group.max(initial=-1) + 2))
        return cls(group, own, scores[order].astype(np.float64), start)

    def with_stand_ins(self, stand_ins: Iterable[tuple[Ints, Floats]]) -> Self:
        """The same where other scores count for some tasks.

        Args:
            stand_ins: rows of tasks, and the scores (n,) that count for these and for no others.
        """
        group, own = self.group.copy(), self.own.copy()
        scores, start = [self.scores], list(self.start)
        for tasks, of_others in stand_ins:
            group[tasks], own[tasks] = len(start) - 1, False
            scores.append(np.sort(of_others).astype(np.float64))
            start.append(start[-1] + len(of_others))
        return type(self)(group, own, np.concatenate(scores), np.array(start))

    @property
    def count(self) -> Ints:
        """How many calibration scores count for each task, (M,)."""
        n: Ints = np.diff(self.start)[self.group]
        return n

    def of_task(self, task: int) -> Doubles:
        """The calibration scores that count for a task, rising."""
        group = self.group[task]
        return self.scores[self.start[group] : self.start[group + 1]]

    def p_values(self, task: int, scores: Floats) -> Doubles:
        """P-values of scores (n,) under one task: LOW where few of its audience score so low."""
        sample = self.of_task(task)
        p: Doubles = (1 + np.searchsorted(sample, scores, side="right")) / (1 + len(sample))
        return p

    def thresholds(self, alpha: float) -> Doubles:
        """The lowest score of each task that is no alarm, (M,): p <= alpha for all below it.

        Minus infinity where the calibration scores are too few for any alarm.
        """
        group_size = np.diff(self.start)
        rank = np.floor(alpha * (group_size + 1) + 1e-9).astype(np.int64)  # the rank-th lowest
        lowest = np.full(len(group_size), -np.inf)
        some = rank > 0
        lowest[some] = self.scores[self.start[:-1][some] + rank[some] - 1]
        return lowest[self.group]


def _groups(count: Ints, own: Bools, size: Ints, pool: int) -> Ints:
    """A number for each task that stands alone, then one for each pool, (M,).

    Pools are cut from the other tasks in order of size, whenever `pool` scores are together; what
    is left over joins the last one.
    """
    group = np.empty(len(count), np.int64)
    group[own] = np.arange(own.sum())
    others = np.flatnonzero(~own)
    others = others[np.argsort(size[others], kind="stable")]
    before = np.cumsum(count[others]) - count[others]  # scores of the smaller ones
    pools = max(int(count[others].sum()) // pool, 1)
    group[others] = own.sum() + np.minimum(before // pool, pools - 1)
    return group
