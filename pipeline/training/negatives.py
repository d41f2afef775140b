"""Items that a user has not seen, drawn uniformly."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class UnseenItems:
    """What every user has not seen, in memory that grows with the pairs seen.

    The r-th unseen item of a user, counted from 0, is r plus the number of seen items before it:
    those seen items p_0 < p_1 < ... for which p_j - j <= r. So one draw of r and one binary search
    give a uniform unseen item, with nothing to reject.

    Attributes:
        keys: (E,) user * items + p_j - j for each pair; rising.
        start: (U + 1,) place in `keys` of each user's first pair.
        items: number of items.
    """

    keys: Tensor
    start: Tensor
    items: int

    @classmethod
    def of(cls, user: Tensor, item: Tensor, *, users: int, items: int) -> Self:
        """From distinct pairs of rows (E,), sorted by user, then item."""
        start = torch.zeros(users + 1, dtype=torch.int64, device=user.device)
        start[1:] = torch.bincount(user, minlength=users).cumsum(0)
        place = torch.arange(len(user), device=user.device) - start[user]  # j
        return cls(user * items + item - place, start, items)

    def count(self, user: Tensor) -> Tensor:
        """How many items each of the users (N,) has not seen; without one there is no negative."""
        return self.items - (self.start[user + 1] - self.start[user])

    def draw(self, user: Tensor, gen: torch.Generator) -> Tensor:
        """An unseen item for each of the users (N,), none of whom has seen them all."""
        # So wide that the remainder is uniform but for one part in 2^62 / items.
        wide = torch.randint(1 << 62, user.shape, generator=gen, device=user.device)
        place = wide % self.count(user)  # r
        before = torch.searchsorted(self.keys, user * self.items + place, right=True)
        return place + before - self.start[user]
