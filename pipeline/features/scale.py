"""What every kind of user vector ends with: its log activity, if wanted, and a common scale."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from pipeline.pairs import ids_of, rows_of


@dataclass(frozen=True)
class Scale:
    """Centres vectors, and gives every dimension that varies unit variance."""

    mean: Tensor  # (d,)
    scale: Tensor  # (d,) standard deviation; 1 in a dimension that does not vary

    @classmethod
    def of(cls, x: Tensor) -> Self:
        """Fit to vectors (n, d)."""
        spread = x.double().std(0, correction=0)
        # A constant of rounded numbers has a spread of some 1e-8 of its size, not of 0.
        constant = spread <= 1e-6 * x.double().abs().amax(0)
        return cls(x.double().mean(0).float(), spread.masked_fill(constant, 1).float())

    @classmethod
    def identity(cls, d: int) -> Self:
        """Leaves vectors of d numbers as they are."""
        return cls(torch.zeros(d), torch.ones(d))

    def apply(self, x: Tensor) -> Tensor:
        """Standardise vectors (n, d)."""
        return (x - self.mean) / self.scale


def with_activity(x: Tensor, users: pa.Table, exposures: pa.Table) -> Tensor:
    """Append log(1 + number of exposures) of each of the users: x (n, d) -> (n, d + 1).

    Raises:
        PipelineError: an exposure of somebody who is not among `users`.
    """
    ids, known = (ids_of(table, "user_id") for table in (exposures, users))
    count = np.bincount(rows_of(ids, known, "user"), minlength=len(known))
    activity = torch.from_numpy(np.log1p(count).astype(np.float32))
    return torch.cat([x, activity[:, None]], 1)
