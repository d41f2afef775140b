"""Matrix factorisation of implicit feedback by alternating least squares.

Hu, Koren, Volinsky, "Collaborative filtering for implicit feedback datasets" (2008), as the
package `implicit` has it.
"""

import importlib.util

import numpy as np
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from pipeline.arrays import Ints, Singles
from pipeline.errors import PipelineError
from pipeline.peers.evidence import Evidence


def als(
    evidence: Evidence,
    users: Ints,
    *,
    factors: int,
    regularisation: float,
    confidence: float,
    iterations: int,
    seed: int,
) -> Singles:
    """Inner products of users' and items' factors, (M, U); high = common.

    Args:
        evidence: what may be seen.
        users: rows of the users to score, (U,).
        factors: numbers a user and an item.
        regularisation: weight of their squares.
        confidence: weight of a visible exposure against that of its absence, 1.
        iterations: alternations.
        seed: of the start.

    Raises:
        PipelineError: the package is not there.
    """
    if importlib.util.find_spec("implicit") is None:
        raise PipelineError(
            "the peer `als` needs the package implicit: pip install -r requirements-peers.txt"
        )
    from implicit.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(
        factors=factors,
        regularization=regularisation,
        alpha=confidence,
        iterations=iterations,
        random_state=seed,
        use_gpu=False,
    )
    with threadpool_limits(limits=1, user_api="blas"):  # it has threads of its own, and warns
        model.fit(csr_matrix(evidence.seen), show_progress=False)
    scores: Singles = model.item_factors[evidence.item] @ model.user_factors[users].T
    return np.asarray(scores, np.float32)
