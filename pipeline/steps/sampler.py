"""DATASAMPLER of Algorithm 1, on an exposure table.

A uniformly drawn exposure row is at once a draw t ~ m and x ~ q_t. The base distribution p is a
column of users of which each entry is equally likely: the users of all exposures (a uniform row is
then a draw of p = sum_t m_t q_t, Proposition 1), or every user once.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.unmet import Met


def batch_count(rows: float, size: int) -> int:
    """How many batches of near `size` rows there are of so many."""
    return max(1, round(rows / size))


@dataclass(frozen=True)
class PairSampler:
    """Positive pairs and the base distribution of their negatives, resident on one device.

    Attributes:
        user: (E,) row of the exposed user of each positive pair.
        task: (E,) row of its task.
        base: (B,) rows of users; a negative is drawn uniformly from it.
        met: where the positives are held-out pairs, the visible ones: no user is a `fixed` negative
            of a task they have met.
    """

    user: Tensor
    task: Tensor
    base: Tensor
    met: Met | None = None

    def draw_base(self, n: int, gen: torch.Generator) -> Tensor:
        """`n` users x~ ~ p, with replacement. A negative may happen to be a positive of its task:
        Proposition 1 wants it so."""  # noqa: D205, D209
        pick = torch.randint(len(self.base), (n,), generator=gen, device=self.base.device)
        return self.base.index_select(0, pick)  # a third of the time of [pick] on a CPU

    def epoch(self, batch_size: int, gen: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Every positive pair once, in random order, each with a fresh negative of the same task.

        Yields (user (2, N), task (N,)): row 0 of `user` holds the positives, row 1 the negatives.
        Batches are near `batch_size` and of equal size, but for the last, which may be smaller.
        """
        users, tasks = self._shuffled(gen)
        count = batch_count(len(tasks), batch_size)
        yield from zip(users.chunk(count, dim=1), tasks.chunk(count), strict=True)

    def within_batches(
        self, batch_size: int, gen: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """As `positives`, for a loss whose negatives are the batch's own positives (`shifted`).

        For x that is dear to compute: a batch holds half as many users. For p over these exposures
        only, of which the user of another row is a draw, and batches of two pairs or more.
        """
        order = self._order(gen)
        for rows in order.tensor_split(batch_count(len(order), batch_size)):
            yield self.user[rows], self.task[rows]

    def in_steps(self, steps: int, gen: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """As `epoch`, in so many batches, some of them empty where there are fewer pairs."""
        users, tasks = self._shuffled(gen)
        yield from zip(users.tensor_split(steps, dim=1), tasks.tensor_split(steps), strict=True)

    def _order(self, gen: torch.Generator) -> Tensor:
        return torch.randperm(len(self.user), generator=gen, device=self.user.device)

    def _shuffled(self, gen: torch.Generator) -> tuple[Tensor, Tensor]:
        order = self._order(gen)
        users = self.user.index_select(0, order)
        return (
            torch.stack([users, self.draw_base(len(order), gen)]),
            self.task.index_select(0, order),
        )

    def positives(self, batch_size: int, gen: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """As `epoch`, without the negatives: user (N,), task (N,)."""
        order = self._order(gen)
        for rows in order.chunk(batch_count(len(order), batch_size)):
            yield self.user[rows], self.task[rows]

    def fixed(self, gen: torch.Generator) -> tuple[Tensor, Tensor]:
        """Every positive pair once, in its place, each with one negative: a validation set."""
        negative = self.unmet(lambda: self.draw_base(len(self.user), gen), int)
        return torch.stack([self.user, negative]), self.task

    def unmet(self, draw: Callable[[], Tensor], total: Callable[[int], int]) -> Tensor:
        """What `draw` gives, a user for every pair; where there is `met`, see `Met.unmet`."""
        if self.met is None:
            return draw()
        user = self.met.unmet(lambda: draw().cpu().numpy(), self.task.cpu().numpy(), total)
        return torch.from_numpy(user).to(self.task.device)


def shifted(positive: Tensor) -> Tensor:
    """Each of the users (N,) beside another of them, under its task as a negative: (2, N).

    Row 0 holds the positives, row 1 the negatives.
    """
    return torch.stack([positive, positive.roll(1)])


@dataclass(frozen=True)
class CountedSampler(PairSampler):
    """The same where the column of p is counted: memory for the users rather than the exposures.

    Attributes:
        base: (U,) how many entries of the column are of the users up to each, that user included.
    """

    def draw_base(self, n: int, gen: torch.Generator) -> Tensor:
        """As from the column in order, which it is draw for draw."""
        pick = torch.randint(int(self.base[-1]), (n,), generator=gen, device=self.base.device)
        return torch.searchsorted(self.base, pick, right=True)
