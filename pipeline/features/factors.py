"""User vectors by matrix factorisation of implicit feedback, by alternating least squares.

Hu, Koren, Volinsky, "Collaborative filtering for implicit feedback datasets" (2008): users' and
items' factors x and y minimise

    sum over users u and items i of  c_ui (s_ui - x_u . y_i)^2  +  penalty (|x|^2 + |y|^2),

where s_ui is 1 and c_ui is 1 + confidence for what u has met, and both are 0 and 1 for the rest.
With the items' factors held fixed, a user's are the solution of one small linear system.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy.sparse import csr_array

from pipeline.arrays import Singles
from pipeline.features.closed_form import ClosedForm
from pipeline.params import Als, Features

AT_ONCE = 1024  # systems solved together, which bounds the memory


@dataclass(frozen=True)
class Factors(ClosedForm):
    """A user's factors; `v` are the items' factors."""

    model: ClassVar[str] = "als"

    @classmethod
    def learn(cls, seen: csr_array, params: Features, seed: int) -> Singles:
        """The items' factors."""
        return item_factors(seen, params.f_dim, params.als, seed)

    @classmethod
    def settings_of(cls, params: Features) -> dict[str, float]:
        """Those of ALS that `solve` takes."""
        return {"penalty": params.als.penalty, "confidence": params.als.confidence}

    def coordinates(self, seen: csr_array) -> Singles:
        """The users' factors."""
        return solve(seen, self.v, **self.settings)


def item_factors(seen: csr_array, k: int, params: Als, seed: int) -> Singles:
    """Factors (I, k) of the items of a matrix (U, I) of 0 and 1, by alternating least squares."""
    weights = {"penalty": params.penalty, "confidence": params.confidence}
    met_by = csr_array(seen.T)
    y = np.random.default_rng(seed).normal(0, 0.01, (seen.shape[1], k)).astype(np.float32)
    for _ in range(params.iterations):
        y = solve(met_by, solve(seen, y, **weights), **weights)
    return y


def solve(seen: csr_array, v: Singles, *, penalty: float, confidence: float) -> Singles:
    """Factors (n, k) of least squared error of the rows of `seen`, given those of its columns.

    Of a row that has met the columns with factors V, one system:
    (v'v + confidence V'V + penalty I) x = (1 + confidence) V'1.

    Args:
        seen: (n, m) of 0 and 1.
        v: factors of the columns, (m, k).
        penalty: weight of their squares.
        confidence: by how much what was met outweighs the rest.
    """
    every = torch.from_numpy(v)
    common = every.T @ every + penalty * torch.eye(v.shape[1])
    x = np.empty((seen.shape[0], v.shape[1]), np.float32)
    for start in range(0, len(x), AT_ONCE):
        part = seen[start : start + AT_ONCE]
        some = [every[torch.from_numpy(met)] for met in np.split(part.indices, part.indptr[1:-1])]
        left = torch.stack([torch.addmm(common, y.T, y, alpha=confidence) for y in some])
        right = (1 + confidence) * torch.from_numpy(part @ v)
        x[start : start + AT_ONCE] = torch.linalg.solve(left, right[..., None])[..., 0]
    return x
