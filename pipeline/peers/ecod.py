"""ECOD: how far out in the tails of each dimension.

Li et al., "ECOD: Unsupervised outlier detection using empirical cumulative distribution functions"
(2022), as PyOD has it: the larger of both tails in each dimension, which leaves the skewness that
the paper looks at without effect. It has nothing to tune.
"""

from collections.abc import Callable

import numpy as np

from pipeline.arrays import Floats, Ints, Singles
from pipeline.peers.detectors import detect
from pipeline.peers.evidence import Evidence


def ecod(evidence: Evidence, users: Ints) -> Singles:
    """Sum over the dimensions of the log of the tail share, (M, U); high = central = common."""
    return detect(evidence, users, fit_ecod)


def fit_ecod(own: Singles) -> Callable[[Singles], Floats]:
    """From a task's users (n, d) to a function from x (U, d) to scores (U,).

    A tail share counts the scored point itself, as if it alone had joined the task's users: then
    none is 0.
    """
    ordered = np.sort(own, axis=0)

    def scores(x: Singles) -> Floats:
        tail = np.empty(x.shape)  # how many lie at least as far out as the point, on its side
        for j, (known, values) in enumerate(zip(ordered.T, x.T, strict=True)):
            below = np.searchsorted(known, values, side="right")
            above = len(known) - np.searchsorted(known, values, side="left")
            tail[:, j] = np.minimum(below, above)
        central: Floats = np.log((tail + 1) / (len(own) + 1)).sum(1)
        return central

    return scores
