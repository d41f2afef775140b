"""Correspondence analysis: the likelihood ratio of least squares, linear, in closed form.

Let P be the table of visible exposures over their number, r and c its margins. The ratio of user u
and item i, q_i(u)/p(u) with p the mixture of all q_i, is P_ui / (r_u c_i). Correspondence analysis
is the singular value decomposition of (P - r c') / sqrt(r c'); its first k terms give the nearest
such ratio of rank k.
"""

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.linalg import svds

from pipeline.arrays import Ints, Singles
from pipeline.errors import PipelineError
from pipeline.peers.evidence import Evidence


def correspondence(evidence: Evidence, users: Ints, *, dim: int) -> Singles:
    """Estimated q_t(u)/p(u), (M, U); high = common. It can be negative.

    Args:
        evidence: what may be seen.
        users: rows of the users to score, (U,).
        dim: number of terms, k; at most two less than there are users and items.

    Raises:
        PipelineError: there are too few of either.
    """
    seen = evidence.seen
    if dim + 1 >= min(seen.shape):
        raise PipelineError(
            f"peers.correspondence.dim: {dim} terms are wanted of {seen.shape[0]} users and "
            f"{seen.shape[1]} items; lower it to {min(seen.shape) - 2} at most."
        )
    row = 1 / np.sqrt(np.maximum(evidence.activity, 1))  # (U,) up to the root of the total
    column = 1 / np.sqrt(np.maximum(evidence.popularity, 1))  # (I,)
    user = np.repeat(np.arange(seen.shape[0]), evidence.activity)
    scaled = csr_array((row[user] * column[seen.indices], seen.indices, seen.indptr), seen.shape)
    # Without r c' taken off, the decomposition has one term more: itself, of singular value 1.
    left, value, right = svds(scaled, k=dim + 1, v0=np.ones(min(seen.shape)))
    of_user = (row[:, None] * left * value)[users]  # (U, k + 1)
    of_task = (column[:, None] * right.T)[evidence.item]  # (M, k + 1)
    return (of_task @ of_user.T * seen.nnz).astype(np.float32)
