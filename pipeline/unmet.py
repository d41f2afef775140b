"""Users who have not met an item: whom its held-out pairs are compared with.

A held-out pair is of a user whose vector x does not hold the item. Beside users whose x does, even
a true log ratio would tell them apart too well: scores would look too large. So negatives of such
pairs are drawn from p among the users of whom no exposure to the item is visible.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np

from pipeline.arrays import Bools, Ints
from pipeline.pairs import find

ROUNDS = 100  # of drawing; who is left then has met what nearly all of p have met


@dataclass(frozen=True)
class Met:
    """Visible pairs of users and tasks, to be looked up.

    Attributes:
        key: (V,) of each pair, rising.
    """

    key: Ints

    @classmethod
    def of(cls, user: Ints, task: Ints) -> Self:
        """From rows of pairs (V,), in any order."""
        return cls(np.sort(_key(user, task)))

    def has(self, user: Ints, task: Ints) -> Bools:
        """Which of the pairs of rows (...) are among them."""
        return find(_key(user, task), self.key) < len(self.key)

    def unmet(
        self, draw: Callable[[], Ints], task: Ints, total: Callable[[int], int] = int
    ) -> Ints:
        """Users from p, each of whom has not met the task beside whom they stand.

        Whoever has is drawn again, until nobody is left or `ROUNDS` are over: nearly all of p have
        met such a task, and there one who has may stay.

        Args:
            draw: gives rows of users (...) from p, one for each of `task`.
            task: rows of tasks (...).
            total: adds up the counts of several processes, which then draw equally often.
        """
        user = draw()
        flat, of = user.reshape(-1), np.broadcast_to(task, user.shape).reshape(-1)
        left = np.flatnonzero(self.has(flat, of))
        for _ in range(ROUNDS):
            if not total(len(left)):
                break
            flat[left] = draw().reshape(-1)[left]
            left = left[self.has(flat[left], of[left])]
        return flat.reshape(user.shape)


def _key(user: Ints, task: Ints) -> Ints:
    return (user.astype(np.int64) << 32) + task
