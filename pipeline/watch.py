"""What is watched while a scorer learns: a loss can still fall while the AUC does."""

from collections.abc import Callable

import numpy as np

from pipeline.arrays import Floats, Ints
from pipeline.auc import Sides, task_aucs
from pipeline.ranks import ALONE, Ranks
from pipeline.training.history import Row


def watch_auc(
    sides: Sides,
    users: Ints,
    scores: Callable[[Ints, Ints], Floats],
    *,
    most: int,
    ranks: Ranks = ALONE,
) -> Callable[[], Row]:
    """Gives `valid_auc`, the mean AUC over tasks, when called; NaN where no task has one.

    Args:
        sides: whom of `users` each task should score above whom, (M, U).
        users: rows of the users, (U,).
        scores: gives the scores (A, U) of rows of tasks (A,) and of users (U,); high = common.
        most: scores behind one AUC; where all tasks would be more, every n-th one is watched.
        ranks: the processes, of whose tasks these are the own ones.
    """
    count = ranks.total(len(sides.positive))
    watched = np.arange(count) % max(1, -(-count * len(users) // most)) == 0
    tasks = np.flatnonzero(ranks.own(watched))
    sides = Sides(sides.positive[tasks], sides.negative[tasks])

    def figures() -> Row:
        defined = task_aucs(scores(tasks, users), sides).defined
        own = float(defined.mean()) if len(defined) else float("nan")
        return {"valid_auc": ranks.mean(own, len(defined))}

    return figures
