"""The other way to the loss of Algorithm 1: every task with every user, and no negative drawn.

Of E exposures E_t are to task t, m_t = E_t / E, and p(u) is the base distribution over users. The
loss that `PairSampler` draws batches of is then, in expectation over its negatives,

    L = sum_t m_t ( mean over the exposed u of softplus(-f(u, t)) + sum_u p(u) softplus(f(u, t)) ).

A block of tasks with all users is a share of that sum, without the noise of negatives.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from pipeline.steps.sampler import PairSampler


@dataclass(frozen=True)
class TaskGrid:
    """Tasks as rows and users as columns, resident on one device.

    Attributes:
        users: (U,) rows of the users who are exposed to a task, or drawn by p.
        base: (U,) p, adds up to 1.
        column: (E,) column of the user of each exposure, sorted by task.
        start: (M + 1,) where the exposures of each task begin.
    """

    users: Tensor
    base: Tensor
    column: Tensor
    start: Tensor

    @classmethod
    def of(cls, pairs: PairSampler) -> Self:
        """The grid of the same exposures and the same base."""
        users, column = torch.cat([pairs.base, pairs.user]).unique(return_inverse=True)
        drawn, exposed = column.split([len(pairs.base), len(pairs.user)])
        base = torch.bincount(drawn, minlength=len(users)).double() / len(drawn)
        count = torch.bincount(pairs.task)
        start = torch.cat([count.new_zeros(1), count.cumsum(0)])
        return cls(users, base.float(), exposed[pairs.task.argsort(stable=True)], start)

    def epoch(self, block: int, gen: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Every task with an exposure once, in random order, about `block` of them at a time.

        Yields (task (T,), weight (T, U)): for each cell the share of its exposure in L, times the
        number of blocks, so that a block's loss is L on average. A row adds up to its m_t, times
        that number.
        """
        device = self.users.device
        count = self.start.diff()
        known = count.nonzero().squeeze(1)
        order = known[torch.randperm(len(known), generator=gen, device=device)]
        for task in order.chunk(max(1, round(len(known) / block))):
            some = count[task]
            row = torch.arange(len(task), device=device).repeat_interleave(some)
            first = self.start[task] - (some.cumsum(0) - some)
            places = first[row] + torch.arange(len(row), device=device)
            weight = torch.zeros(len(task), len(self.users), device=device)
            share = len(known) / (len(task) * len(self.column))
            weight.index_put_((row, self.column[places]), weight.new_tensor(share), accumulate=True)
            yield task, weight
