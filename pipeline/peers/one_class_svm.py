"""One-class support vector machines: within or beyond the edge of a task's users.

Schölkopf et al., "Estimating the support of a high-dimensional distribution" (2001), as
scikit-learn has it, with a Gaussian kernel of its usual width.
"""

from collections.abc import Callable

from sklearn.svm import OneClassSVM

from pipeline.arrays import Floats, Ints, Singles
from pipeline.peers.detectors import detect
from pipeline.peers.evidence import Evidence


def one_class_svm(evidence: Evidence, users: Ints, *, nu: float) -> Singles:
    """A machine for each task, (M, U); high = far inside = common.

    Args:
        evidence: what may be seen.
        users: rows of the users to score, (U,).
        nu: at most this share of a task's users lies outside.
    """

    def fit(own: Singles) -> Callable[[Singles], Floats]:
        scores: Callable[[Singles], Floats] = OneClassSVM(nu=nu).fit(own).score_samples
        return scores

    return detect(evidence, users, fit)
