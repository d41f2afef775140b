"""How well pairs that came later were foreseen, as running sums."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np

from pipeline.arrays import Doubles, Ints


@dataclass(frozen=True)
class Drift:
    """The losses of all pairs that came later, over all updates.

    Attributes:
        pairs: how many.
        loss: the sum of their losses (equation 3) by vectors that had not learned of them.
        pairs_squared, pairs_loss, loss_squared: sums over users of the squares and the product of
            their own number of pairs and loss; a user of two updates counts as two.
    """

    pairs: int = 0
    loss: float = 0.0
    pairs_squared: float = 0.0
    pairs_loss: float = 0.0
    loss_squared: float = 0.0

    def add(self, user: Ints, loss: Doubles) -> Self:
        """With more pairs, of each its user (n,) and its loss (n,)."""
        _, place = np.unique(user, return_inverse=True)
        pairs, losses = np.bincount(place), np.bincount(place, loss)
        return type(self)(
            self.pairs + len(user),
            self.loss + float(losses.sum()),
            self.pairs_squared + float(pairs @ pairs),
            self.pairs_loss + float(pairs @ losses),
            self.loss_squared + float(losses @ losses),
        )

    @property
    def mean(self) -> float:
        """Mean loss of a pair."""
        return self.loss / self.pairs

    @property
    def error(self) -> float:
        """Standard error of the mean, by which users differ: pairs of one user are alike."""
        m = self.mean
        square = self.loss_squared - 2 * m * self.pairs_loss + m * m * self.pairs_squared
        return math.sqrt(max(square, 0)) / self.pairs
