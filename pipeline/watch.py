"""What is watched while a scorer learns: a loss can still fall while the AUC does."""

from collections.abc import Callable

import numpy as np

from pipeline.auc import Ints, Scores, Sides, task_aucs
from pipeline.training.loop import Row


def watch_auc(
    sides: Sides, users: Ints, scores: Callable[[Ints, Ints], Scores], *, most: int
) -> Callable[[], Row]:
    """Gives `valid_auc`, the mean AUC over tasks, when called; NaN where no task has one.

    Args:
        sides: whom of `users` each task should score above whom, (M, U).
        users: rows of the users, (U,).
        scores: gives the scores (A, U) of rows of tasks (A,) and of users (U,); high = common.
        most: scores behind one AUC; where all tasks would be more, every n-th one is watched.
    """
    count = len(sides.positive)
    tasks = np.arange(0, count, max(1, -(-count * len(users) // most)))
    sides = Sides(sides.positive[tasks], sides.negative[tasks])

    def figures() -> Row:
        defined = task_aucs(scores(tasks, users), sides).defined
        return {"valid_auc": float(defined.mean()) if len(defined) else float("nan")}

    return figures
