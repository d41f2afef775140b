"""One outlier detector a task, fitted to the x of its training exposures."""

from collections.abc import Callable

import numpy as np

from pipeline.arrays import Floats, Ints, Singles
from pipeline.peers.evidence import Evidence

Fit = Callable[[Singles], Callable[[Singles], Floats]]


def detect(evidence: Evidence, users: Ints, fit: Fit) -> Singles:
    """Scores (M, U) of a detector for each task; high = common.

    A task at a time: scikit-learn fits one set of users at a time. A task without exposures
    to learn from scores 0.

    Args:
        evidence: of which x and the pairs to learn from are read.
        users: rows of the users to score, (U,).
        fit: from the x (n, d) of a task's users to a function from x (U, d) to scores (U,).
    """
    x, learned = evidence.examples.x, evidence.examples.learned
    order = np.argsort(learned.task, kind="stable")
    ends = np.cumsum(np.bincount(learned.task, minlength=evidence.examples.tasks))
    scores = np.zeros((evidence.examples.tasks, len(users)), np.float32)
    for task, own in enumerate(np.split(learned.user[order], ends[:-1])):
        if len(own):
            scores[task] = fit(x[own])(x[users])
    return scores
