"""User activity: who has seen much will have seen this too. The same for every task."""

import numpy as np

from pipeline.arrays import Ints, Singles
from pipeline.peers.evidence import Evidence


def activity(evidence: Evidence, users: Ints) -> Singles:
    """Number of visible exposures of each user, (M, U); high = active = common."""
    counts = evidence.activity[users].astype(np.float32)
    return np.tile(counts, (len(evidence.item), 1))
