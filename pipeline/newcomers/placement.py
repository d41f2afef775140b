"""Where a task that comes later lies among the trained ones: from its first exposures, untrained.

Algorithm 1 moves the embeddings from where equation 4 put them. What it moved them to is nearly a
linear function of the mean vector of a task's audience, over the tasks that were trained; a new
task is put where that function has it.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from pipeline.arrays import Doubles, Floats, Singles
from pipeline.errors import PipelineError

FEWEST = 5  # exposures by users who count, with which an item that came later is a task
RIDGE = 0.01  # of the variance of a standardised mean: audiences of few tasks are much alike


@dataclass(frozen=True)
class Placement:
    """e = bias + (mean vector of the audience - centre) / scale @ weight."""

    centre: Doubles  # (x_dim,)
    scale: Doubles  # (x_dim,)
    weight: Doubles  # (x_dim, e_dim)
    bias: Doubles  # (e_dim,)

    @classmethod
    def fit(cls, means: Floats, e: Singles) -> Self:
        """Regress the trained embeddings e (M, e_dim) on the audiences' mean vectors (M, x_dim).

        Raises:
            PipelineError: a single task, from which nothing is learned of others.
        """
        if len(means) < 2:
            raise PipelineError(
                f"a new task is placed among trained ones, of which there are {len(means)}; train "
                "more tasks."
            )
        means = means.astype(np.float64)
        centre, spread = means.mean(0), means.std(0)
        scale = np.where(spread > 1e-6 * np.abs(means).max(), spread, 1)
        z = (means - centre) / scale
        bias = e.mean(0, dtype=np.float64)
        inner = z.T @ z + RIDGE * len(z) * np.eye(z.shape[1])
        return cls(centre, scale, np.linalg.solve(inner, z.T @ (e - bias)), bias)

    def apply(self, means: Floats) -> Singles:
        """Embeddings (n, e_dim) of audiences with the mean vectors `means` (n, x_dim)."""
        e: Doubles = self.bias + (means - self.centre) / self.scale @ self.weight
        return e.astype(np.float32)
