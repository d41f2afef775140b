"""What Algorithm 1 learns from, as arrays: users' vectors, exposures to tasks, who trains."""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from pipeline.arrays import Ints, Singles
from pipeline.pairs import Pairs, in_rows, split_rows, task_pairs
from pipeline.ranks import Ranks
from pipeline.storage import matrix


@dataclass(frozen=True)
class Examples:
    """Users and their exposures to tasks.

    Attributes:
        x: user vectors, (U, x_dim); once they are dealt out, of this process's own users alone.
        pairs: exposures of all users to the tasks, held-out ones too.
        train: rows of the training users, rising.
        valid: rows of the validation users, rising.
        tasks: number of tasks, M.
        dealt: number of users, U, once x is dealt out; None before.
    """

    x: Singles
    pairs: Pairs
    train: Ints
    valid: Ints
    tasks: int
    dealt: int | None = None

    @classmethod
    def of(
        cls, features: pa.Table, tasks: pa.Table, exposures: pa.Table, splits: pa.Table
    ) -> "Examples":
        """From the tables; rows of users are those of `features`.

        Raises:
            PipelineError: tables that do not belong together.
        """
        return cls(
            matrix(features.column("x")),
            task_pairs(exposures, features, tasks),
            split_rows(splits, features, "train"),
            split_rows(splits, features, "valid"),
            tasks.num_rows,
        )

    def of_all_users(self) -> "Examples":
        """The same where the visible exposures of all users train, and no held-out one is there."""
        return replace(
            self, pairs=self.pairs.where(~self.pairs.held_out), train=np.arange(self.users)
        )

    def on(self, ranks: Ranks) -> "Examples":
        """The tasks that lie on this process, with their pairs; users are the same everywhere."""
        if ranks.alone:
            return self
        pairs = self.pairs.where(self.pairs.task % ranks.size == ranks.rank)
        own = replace(pairs, task=pairs.task // ranks.size)
        return replace(self, pairs=own, tasks=len(ranks.own(range(self.tasks))))

    def deal_x(self, ranks: Ranks) -> "Examples":
        """The same with the vectors of the users that lie on this process, if they deal users out.

        They are copied, so that the others need not be held. What is dealt out stays as it is.
        """
        if not ranks.deal_out or self.dealt is not None:
            return self
        return replace(self, x=ranks.own(self.x).copy(), dealt=len(self.x))

    @property
    def users(self) -> int:
        """Number of users, U, wherever their vectors are."""
        return len(self.x) if self.dealt is None else self.dealt

    @property
    def learned(self) -> Pairs:
        """The pairs of the training users."""
        return self.pairs.where(in_rows(self.pairs.user, self.train, self.users))
