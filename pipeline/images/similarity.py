"""Whether embeddings know which tasks are alike: Figure 3 of Bai et al.

The truth about two tasks is the number of categories that are active in both.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr
from sklearn.metrics.pairwise import cosine_similarity

from pipeline.arrays import Bools, Doubles, Ints, Singles


@dataclass(frozen=True)
class Agreement:
    """Cosine similarities of tasks by some coordinates of their embeddings.

    Attributes:
        coordinates: how many were taken.
        cosine: (M, M).
        spearman: rank correlation with the truth over all pairs of different tasks.
    """

    coordinates: int
    cosine: Doubles
    spearman: float


def overlap(active: Bools) -> Ints:
    """Number of categories that two tasks share, (M, M), of active (M, CATEGORIES)."""
    counts = active.astype(np.int64)
    shared: Ints = counts @ counts.T
    return shared


def agreement(
    statistic: Singles, active: Bools, coordinates: int, gen: np.random.Generator
) -> Agreement:
    """Compare tasks by `coordinates` of the columns of their statistic, drawn at random.

    The statistic is centred over the tasks first: what all tasks have in common tells none apart,
    and would make every cosine nearly 1.

    Args:
        statistic: equation 4 for each task, (M, M0).
        active: (M, CATEGORIES).
        coordinates: how many of the M0 to use; all of them if there are fewer.
        gen: draws them.
    """
    chosen = gen.permutation(statistic.shape[1])[:coordinates]
    cosine = cosine_similarity((statistic - statistic.mean(0))[:, chosen].astype(np.float64))
    pairs = np.triu_indices(len(active), k=1)
    # Rounded, so that equal similarities are ties whatever their last bits.
    rank = spearmanr(overlap(active)[pairs], cosine[pairs].round(5)).statistic
    return Agreement(len(chosen), cosine, float(rank))


def panels(
    statistic: Singles, active: Bools, coordinates: Sequence[int], gen: np.random.Generator
) -> dict[str, Doubles]:
    """Figure 3: the truth, and the cosines by so many coordinates each."""
    found = {"truth": overlap(active).astype(float)}
    for n in coordinates:
        found[f"{n} coordinates"] = agreement(statistic, active, n, gen).cosine
    return found
