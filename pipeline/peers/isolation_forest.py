"""Isolation forests: how many random cuts it takes to be alone.

Liu, Ting, Zhou, "Isolation forest" (2008), as scikit-learn has it.
"""

from collections.abc import Callable

from sklearn.ensemble import IsolationForest

from pipeline.arrays import Floats, Ints, Singles
from pipeline.peers.detectors import detect
from pipeline.peers.evidence import Evidence


def isolation_forest(evidence: Evidence, users: Ints, *, trees: int, seed: int) -> Singles:
    """A forest for each task, (M, U); high = takes many cuts = common."""

    def fit(own: Singles) -> Callable[[Singles], Floats]:
        scores: Callable[[Singles], Floats] = (
            IsolationForest(n_estimators=trees, random_state=seed).fit(own).score_samples
        )
        return scores

    return detect(evidence, users, fit)
