"""Where task embeddings start: equation 4 and the other initialisations.

Every initialisation but `random` and `graph` is a statistic of the users whom a task was exposed
to: the mean, over the task's training exposures, of something known of each user.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from pipeline.arrays import Floats, Ints, Singles
from pipeline.pairs import Pairs


def task_means(values: Floats, pairs: Pairs, tasks: int) -> Singles:
    """Mean of `values` over the users exposed to each task.

    With `values` = (f_1(x), ..., f_M0(x)) of the pre-embedding model this is equation 4, taken over
    all exposures rather than over a sample. A task without any exposure gets the mean over all
    exposures: what is known of a task of which nothing is known.

    Shape: values (U, d) -> (tasks, d).
    """
    ones = np.ones(len(pairs))
    exposed = csr_array((ones, (pairs.task, pairs.user)), shape=(tasks, len(values)))
    sums = exposed @ values.astype(np.float64)
    counts = np.bincount(pairs.task, minlength=tasks)
    means = sums / np.maximum(counts, 1)[:, None]
    means[counts == 0] = sums.sum(0) / max(len(pairs), 1)
    return means.astype(np.float32)


@dataclass(frozen=True)
class Projection:
    """From the statistic of a task to its embedding: e = (statistic - mean) / scale @ components.

    Fitted on all tasks, and applied unchanged to a task that comes later.
    """

    mean: Singles  # (d,)
    scale: Singles  # (d,)
    components: Singles  # (d, e_dim)

    @classmethod
    def fit(cls, statistic: Singles, *, standardise: bool, reduce: int | None) -> Self:
        """Fit to `statistic` (M, d).

        Args:
            statistic: one row a task.
            standardise: centre, and divide by the standard deviation of each dimension. The raw
                spread of the learned embedding, .06 to .9, slows the training.
            reduce: keep this many principal components, each of unit variance if `standardise`.
        """
        d = statistic.shape[1]
        mean, scale = np.zeros(d, np.float32), np.ones(d, np.float32)
        if standardise:
            mean[:], spread = statistic.mean(0), statistic.std(0)
            scale[:] = np.where(spread > 1e-6 * np.abs(statistic).max(), spread, 1)
        components: Singles = np.eye(d, dtype=np.float32)
        if reduce is not None and reduce < d:
            centred = (statistic - statistic.mean(0)) / scale
            components = _principal(centred, reduce, whiten=standardise)
        return cls(mean, scale, components)

    def apply(self, statistic: Singles) -> Singles:
        """Embeddings (M, e_dim) of `statistic` (M, d)."""
        e: Singles = np.divide(statistic - self.mean, self.scale) @ self.components
        return e

    def tensors(self) -> dict[str, Tensor]:
        """The fields as tensors, as `projection.safetensors` holds them."""
        return {name: torch.from_numpy(value) for name, value in vars(self).items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """The inverse of `tensors`."""
        return cls(**{name: value.numpy() for name, value in tensors.items()})


def _principal(centred: Singles, keep: int, *, whiten: bool) -> Singles:
    """The first `keep` principal directions (d, keep) of rows; scaled to unit variance if asked."""
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    rows = np.arange(len(directions))
    # An SVD leaves the signs open; equal inputs must give equal embeddings on any machine.
    signs = np.sign(directions[rows, np.abs(directions).argmax(1)])
    directions = (directions * signs[:, None])[:keep]
    if whiten:
        spread = singular[:keep] / np.sqrt(len(centred))
        directions = directions / np.where(spread > 1e-6 * spread[0], spread, 1)[:, None]
    return np.ascontiguousarray(directions.T, dtype=np.float32)


def histogram_values(codes: Ints, classes: int) -> Singles:
    """Indicator of each user's class, (U, classes): its task mean is the histogram embedding."""
    return np.eye(classes, dtype=np.float32)[codes]


def random_embeddings(tasks: int, dim: int, rng: np.random.Generator) -> Singles:
    """Standard normal embeddings (tasks, dim)."""
    return rng.standard_normal((tasks, dim), dtype=np.float32)
