"""Who has met which item, as running sums: exposures that come later are added, never recounted."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.sparse import csr_array

from pipeline.arrays import Bools, Doubles, Ints, Singles
from pipeline.pairs import find


@dataclass(frozen=True)
class Audience:
    """Running sums over the audiences of items: of tasks, and of those nobody had met before.

    Attributes:
        item_id: (I,) rising.
        exposures: (I,) by anybody.
        counted: (I,) by users that count: those who trained, and those who came later.
        sums: (I, x_dim) of the vectors of the users who count.
    """

    item_id: Ints
    exposures: Ints
    counted: Ints
    sums: Doubles

    @classmethod
    def nothing(cls, x_dim: int) -> Self:
        """Of no item."""
        none = np.zeros(0, np.int64)
        return cls(none, none, none, np.zeros((0, x_dim)))

    @property
    def means(self) -> Doubles:
        """The mean vector of each audience, (I, x_dim); zeros where there is none."""
        means: Doubles = self.sums / np.maximum(self.counted, 1)[:, None]
        return means

    def with_items(self, item_id: Ints) -> Self:
        """With further items, which nobody has met."""
        new = np.setdiff1d(item_id, self.item_id)
        order = np.argsort(np.concatenate((self.item_id, new)), kind="stable")
        zeros = np.zeros(len(new), np.int64)
        return type(self)(
            np.concatenate((self.item_id, new))[order],
            np.concatenate((self.exposures, zeros))[order],
            np.concatenate((self.counted, zeros))[order],
            np.concatenate((self.sums, np.zeros((len(new), self.sums.shape[1]))))[order],
        )

    def add(self, item_id: Ints, user: Ints, x: Singles, *, counts: Bools, sign: int = 1) -> Self:
        """With more exposures (n,), or without them.

        Args:
            item_id: of each exposure; items that are not followed are left out.
            user: row of its user in x.
            x: (U, x_dim) vectors.
            counts: (n,) whether the user counts.
            sign: 1, or -1 to take them away again.
        """
        row = find(item_id, self.item_id)
        followed = row < len(self.item_id)
        counting = followed & counts

        def met(which: Bools) -> csr_array:
            ones = np.full(np.count_nonzero(which), float(sign))
            return csr_array((ones, (row[which], user[which])), shape=(len(self.item_id), len(x)))

        def number(of: csr_array) -> Ints:
            total: Ints = np.rint(of.sum(axis=1)).astype(np.int64)
            return total

        of_counting = met(counting)
        return type(self)(
            self.item_id,
            self.exposures + number(met(followed)),
            self.counted + number(of_counting),
            self.sums + of_counting @ x.astype(np.float64),
        )
