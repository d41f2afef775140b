"""Item neighbourhoods: how like the task's item are the items that the user has seen.

Sarwar et al., "Item-based collaborative filtering recommendation algorithms" (2001), with all
items as neighbours.
"""

import numpy as np

from pipeline.arrays import Ints, Singles
from pipeline.peers.evidence import Evidence


def item_knn(evidence: Evidence, users: Ints, *, per_item: bool) -> Singles:
    """Sum, or mean, over the user's items of their cosine with the task's item; high = common.

    Args:
        evidence: what may be seen.
        users: rows of the users to score, (U,).
        per_item: divide by the user's activity. The sum grows with it; the mean asks how large a
            part of the user's taste is like the item, as a ratio against the base does.

    Returns:
        (M, U). The item itself is none of its neighbours.
    """
    length = np.sqrt(np.maximum(evidence.popularity, 1)).astype(np.float32)  # (I,)
    together = (evidence.seen.T @ evidence.seen[:, evidence.item]).toarray()  # (I, M) users of both
    cosine = together / length[:, None] / length[evidence.item]
    cosine[evidence.item, np.arange(len(evidence.item))] = 0
    scores = (evidence.seen[users] @ cosine).T  # (M, U)
    if per_item:
        scores /= np.maximum(evidence.activity[users], 1)
    return np.asarray(scores, np.float32)
