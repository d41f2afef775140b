"""ECOD: how far out in the tails of each dimension.

Li et al., "ECOD: Unsupervised outlier detection using empirical cumulative distribution functions"
(2022), with PyOD's choice of the larger tail in each dimension. It has nothing to tune.
"""

from collections.abc import Callable

import numpy as np
from scipy.stats import skew

from pipeline.auc import Ints, Scores, Singles
from pipeline.peers.detectors import detect
from pipeline.peers.evidence import Evidence


def ecod(evidence: Evidence, users: Ints) -> Singles:
    """Minus the sum of -log tail shares over the dimensions, (M, U); high = central = common."""
    return detect(evidence, users, fit_ecod)


def fit_ecod(own: Singles) -> Callable[[Singles], Scores]:
    """From a task's users (n, d) to a function from x (U, d) to scores (U,).

    A tail share counts the scored point itself, as if it alone had joined the task's users: then
    none is 0. The tail is the larger of both; in a skewed dimension, that on the long side.
    """
    ordered = np.sort(own, axis=0)
    side = np.sign(skew(own, axis=0))  # (d,) 1: the right tail is the long one

    def scores(x: Singles) -> Scores:
        below = np.empty(x.shape)
        above = np.empty(x.shape)
        for j, (known, values) in enumerate(zip(ordered.T, x.T, strict=True)):
            below[:, j] = np.searchsorted(known, values, side="right")
            above[:, j] = len(known) - np.searchsorted(known, values, side="left")
        left, right = (-np.log((tail + 1) / (len(own) + 1)) for tail in (below, above))
        long_side = np.where(side > 0, right, np.where(side < 0, left, left + right))
        outlying: Scores = np.maximum(np.maximum(left, right), long_side).sum(1)
        return -outlying

    return scores
