"""User vectors by a truncated singular value decomposition of the exposures.

The users x items matrix is S ~ U D V'; a user's vector is their row of S V.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.linalg import svds

from pipeline.arrays import Singles
from pipeline.errors import PipelineError
from pipeline.features.closed_form import ClosedForm
from pipeline.params import Features


@dataclass(frozen=True)
class Directions(ClosedForm):
    """Coordinates along the main directions; `v` are right singular vectors, largest first."""

    model: ClassVar[str] = "svd"

    @classmethod
    def learn(cls, seen: csr_array, params: Features, seed: int) -> Singles:
        """The main directions of the exposures."""
        return main_directions(seen, params.f_dim)

    def coordinates(self, seen: csr_array) -> Singles:
        """Products with the directions."""
        x: Singles = seen @ self.v
        return x


def main_directions(seen: csr_array, k: int) -> Singles:
    """The `k` right singular vectors (I, k) of largest singular value of a matrix (U, I).

    Their signs are left open; here the largest number of each is positive, so that equal matrices
    give equal vectors on any machine.

    Raises:
        PipelineError: a matrix too small to have so many computed.
    """
    users, items = seen.shape
    if k > (most := max(min(users, items) - 1, 0)):
        raise PipelineError(
            f"features: {k} directions are wanted, but the visible exposures of {users:,} users "
            f"to {items:,} items have at most {most:,} to be computed; set features.f_dim "
            "to fewer."
        )
    _, d, v = svds(seen.astype(np.float64), k=k, v0=np.ones(min(seen.shape)))
    v = v[np.argsort(-d)]
    v *= np.sign(v[np.arange(k), np.abs(v).argmax(1)])[:, None]
    return np.ascontiguousarray(v.T, np.float32)
