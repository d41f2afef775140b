"""Item popularity: the same for every user, so that within a task it knows nothing."""

import numpy as np

from pipeline.arrays import Ints, Singles
from pipeline.peers.evidence import Evidence


def popularity(evidence: Evidence, users: Ints) -> Singles:
    """Number of visible exposures of each task's item, (M, U); high = popular = common.

    An AUC over the users of a task sees a constant: 1/2. It stands in the table to say so.
    """
    counts = evidence.popularity[evidence.item].astype(np.float32)
    return np.repeat(counts[:, None], len(users), axis=1)
