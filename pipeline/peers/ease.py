"""EASE: the linear item-to-item model of least squared error, none of them its own neighbour.

Steck, "Embarrassingly shallow autoencoders for sparse data" (2019).
"""

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from pipeline.arrays import Ints, Singles
from pipeline.peers.evidence import Evidence


def ease(evidence: Evidence, users: Ints, *, penalty: float) -> Singles:
    """x_u B for every task, (M, U); high = common.

    B minimises |X - X B|^2 + penalty |B|^2 with a diagonal of 0. With P the inverse of
    X'X + penalty I that is B = -P / diag(P), column by column.
    """
    gram = (evidence.seen.T @ evidence.seen).toarray().astype(np.float64)  # (I, I)
    np.fill_diagonal(gram, gram.diagonal() + penalty)
    own = evidence.item, np.arange(len(evidence.item))
    unit = np.zeros((len(gram), len(evidence.item)))
    unit[own] = 1
    inverse = cho_solve(cho_factor(gram, overwrite_a=True), unit, overwrite_b=True)  # (I, M)
    weights = inverse / -inverse[own]
    weights[own] = 0
    scores: Singles = (evidence.seen[users] @ weights.astype(np.float32)).T
    return scores
