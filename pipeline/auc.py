"""AUC of many tasks over the same users: exact with ties, its ROC, its bootstrap over users.

Scores are log ratios or stand in for them: HIGH = common, LOW = fresh. An AUC is the share of
(positive, negative) pairs of users in which the positive one scores higher; ties count half.
"""

from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from pipeline.arrays import Bools, Doubles, Floats, Ints, Singles


@dataclass(frozen=True)
class Sides:
    """Whom each task should score above whom; users on neither side take no part.

    Attributes:
        positive: users that should score high, (M, U).
        negative: users that should score low, (M, U).
    """

    positive: Bools
    negative: Bools

    @property
    def defined(self) -> Bools:
        """The tasks with a user on either side, (M,): the others have no AUC."""
        return np.logical_and(self.positive.any(axis=1), self.negative.any(axis=1))


@dataclass(frozen=True)
class TaskAucs:
    """The AUC of every task, and what it was counted from."""

    auc: Doubles  # (M,) NaN where a side is empty
    positives: Ints  # (M,) users
    negatives: Ints  # (M,) users
    ties: Ints  # (M,) pairs of a positive and a negative user with equal scores

    @property
    def defined(self) -> Doubles:
        """The AUCs that are defined, in the order of their tasks."""
        return self.auc[~np.isnan(self.auc)]


def task_aucs(scores: Floats, sides: Sides) -> TaskAucs:
    """The AUC of every task by counting, from scores (M, U).

    A task at a time: their sides are ragged, and each takes some ten microseconds.
    """
    auc = np.full(len(scores), np.nan)
    ties = np.zeros(len(scores), np.int64)
    for t in np.flatnonzero(sides.defined):
        positive = scores[t, sides.positive[t]]
        negative = np.sort(scores[t, sides.negative[t]])
        below = np.searchsorted(negative, positive, side="left").sum()
        not_above = np.searchsorted(negative, positive, side="right").sum()
        auc[t] = (below + not_above) / (2 * len(positive) * len(negative))
        ties[t] = not_above - below
    return TaskAucs(auc, sides.positive.sum(axis=1), sides.negative.sum(axis=1), ties)


def mean_roc(scores: Floats, sides: Sides, fpr: Doubles) -> Doubles:
    """True positive rate at each false positive rate of `fpr` (G,), mean over defined tasks, (G,).

    One task must be defined. Between thresholds a curve is a straight line: ties lie on a
    diagonal.
    """
    total = np.zeros(len(fpr))
    defined = np.flatnonzero(sides.defined)
    for t in defined:
        positive = np.sort(scores[t, sides.positive[t]])
        negative = np.sort(scores[t, sides.negative[t]])
        threshold = np.unique(np.concatenate((positive, negative)))[::-1]
        task_tpr = _above(threshold, positive)
        task_fpr = _above(threshold, negative)
        total += np.interp(fpr, np.append(0, task_fpr), np.append(0, task_tpr))
    return total / len(defined)


def _above(thresholds: Floats, scores: Floats) -> Doubles:
    """Share of the rising `scores` at or above each threshold, the double nearest to the fraction.

    A step of a curve may lie on a point of the grid, so that the last bit decides.
    """
    return (len(scores) - np.searchsorted(scores, thresholds)) / len(scores)


def resample_weights(users: int, resamples: int, gen: np.random.Generator) -> Singles:
    """How often each user is drawn in each bootstrap resample, (U, B): whole numbers."""
    counts = gen.multinomial(users, np.full(users, 1 / users), size=resamples)
    return np.ascontiguousarray(counts.T, np.float32)


def resampled_means(scores: Floats, sides: Sides, weights: Singles) -> Doubles:
    """Mean AUC over tasks in each resample, (B,); a task whose side vanishes leaves the resample.

    With weights w the AUC of task t is w+' C_t w- / (sum w+ * sum w-), where C_t (P, N) holds 1,
    1/2 or 0 as the positive user wins, ties or loses. Tasks with the same sides share both sums,
    so that their C_t are added up before one product: under a label one for each pair of classes.

    Single precision is exact here: 2 C_t and w are whole numbers, and so are the entries of
    (sum_t 2 C_t) w-, at most 2 * tasks * users. Below 2^24 (1,620 tasks of 5,178 users) they are
    exact in any order of addition, above it to 7 digits each. The sum over w+ is in double.

    Args:
        scores: (M, U).
        sides: of the M tasks; undefined ones are left out, one must be defined.
        weights: from `resample_weights`, (U, B).

    Returns:
        The means, NaN for a resample without any task.
    """
    groups = _same_sides(sides)
    first = [members[0] for members in groups]
    high_weight = sides.positive[first].astype(np.float32) @ weights  # (G, B)
    low_weight = sides.negative[first].astype(np.float32) @ weights
    pairs = np.multiply(high_weight, low_weight, dtype=np.float64)
    total = np.zeros(weights.shape[1])
    # Many small products: on a busy machine a second thread waits far longer than it helps.
    with threadpool_limits(limits=1, user_api="blas"):
        for members, n in zip(groups, pairs, strict=True):
            total += _won(scores, sides, members, weights) / np.maximum(n, 1)  # no pairs, no wins
    tasks = np.array([len(members) for members in groups]) @ (pairs > 0)  # (B,)
    means: Doubles = np.divide(total, tasks, where=tasks > 0, out=np.full(len(total), np.nan))
    return means


def _won(scores: Floats, sides: Sides, members: Ints, weights: Singles) -> Doubles:
    """Weight of the pairs that `members`, tasks of the same sides, won in each resample, (B,)."""
    positive = np.flatnonzero(sides.positive[members[0]])  # (P,)
    is_negative = sides.negative[members[0]]
    negative = np.flatnonzero(is_negative)  # (N,)
    if 2 * len(negative) > len(is_negative):  # of all others 0: no copy of most of the weights
        negative = np.arange(len(is_negative))
    twice_wins = np.zeros((len(positive), len(negative)), np.float32)  # sum_t 2 C_t
    for t in members:
        high, low = scores[t, positive, None], scores[t, negative]
        twice_wins += np.add(high > low, high >= low, dtype=np.float32)
    if len(negative) == len(is_negative):
        twice_wins *= is_negative
        won = twice_wins @ weights  # (P, B)
    else:
        won = twice_wins @ weights[negative]
    half: Doubles = np.einsum("pb,pb->b", won, weights[positive], dtype=np.float64) / 2
    return half


def _same_sides(sides: Sides) -> list[Ints]:
    """The defined tasks, grouped by equal positive and equal negative users."""
    defined = np.flatnonzero(sides.defined)
    members = np.hstack((sides.positive[defined], sides.negative[defined]))  # (M', 2 U)
    _, group = np.unique(np.packbits(members, axis=1), axis=0, return_inverse=True)
    ends = np.cumsum(np.bincount(group))[:-1]
    return np.split(defined[np.argsort(group, kind="stable")], ends)
