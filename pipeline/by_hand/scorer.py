"""Scores of whom you like, by the trained ratio: ids in, tables out.

`python -m stages.score` by hand is a shell over this; docs/score.md explains the columns.
Scores are log ratios in nats: HIGH = common user, LOW = fresh (anomalous) user.
"""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Literal, Self

import numpy as np
import pyarrow as pa
import torch

from pipeline.arrays import Ints
from pipeline.by_hand import ALPHA
from pipeline.by_hand.catalogue import Catalogue
from pipeline.by_hand.explanation import Explainer
from pipeline.by_hand.familiarity import Familiarity, best
from pipeline.by_hand.familiarity import unseen as unmet
from pipeline.by_hand.known import Files, Known
from pipeline.by_hand.naming import Ids
from pipeline.embedding_matrix import embedding_matrix
from pipeline.model_files import read_network
from pipeline.models.ratio import RatioNet
from pipeline.pairs import split_rows, task_pairs
from pipeline.storage import matrix


class Scorer:
    """The trained ratio, and whom it knows.

    Opened once, it answers from memory, and nothing that it is asked changes it: several threads
    may ask it at a time. What `dvc repro` or `update` writes later it does not see; open another.

    Ids are those of your own data: whole numbers, or text where ids are text. One alone, a list, an
    array or a column will do. `users.names` and `items.names` are all that can be asked for.

    Args:
        net: the network.
        known: whom it knows.
        alpha: false-alarm rate of the verdicts.
        device: where scores are computed.

    Raises:
        ValueError: an alpha that is no share.
    """

    def __init__(
        self,
        net: RatioNet,
        known: Known,
        *,
        alpha: float = ALPHA,
        device: torch.device | str = "cpu",
    ) -> None:
        if not 0 < alpha < 1:
            raise ValueError(f"alpha must be between 0 and 1. Got {alpha}.")
        features, tasks = known.features, known.tasks
        x = torch.from_numpy(matrix(features.column("x"))).to(device)
        self.known, self.net = known, net.to(device)
        self.familiarity = Familiarity(
            self.net,
            x=x,
            e=torch.from_numpy(embedding_matrix(known.task_embeddings, tasks)).to(device),
            pairs=task_pairs(known.exposures, features, tasks),
            valid=split_rows(known.splits, features, "valid"),
            size=tasks.column("train_exposures").to_numpy(),
            alpha=alpha,
            stand_ins=known.stand_ins,
        )
        self.catalogue = Catalogue.of(features, tasks, known.users, known.items)
        self.users, self.items = self.catalogue.users, self.catalogue.items

    @classmethod
    def open(
        cls,
        data: Path | str = "data",
        *,
        state: Path | str | None = None,
        alpha: float = ALPHA,
        device: torch.device | str = "cpu",
    ) -> Self:
        """Read what `dvc repro` left in the folder `data`.

        Args:
            data: the folder.
            state: the folder in which `update` keeps what came since, to know that too.
            alpha: false-alarm rate of the verdicts.
            device: where scores are computed.

        Raises:
            PipelineError: a file is missing or damaged, or they do not belong together.
        """
        now = None if state is None else Path(state)
        return cls.read(Files.below(Path(data)), state=now, alpha=alpha, device=device)

    @classmethod
    def read(
        cls,
        files: Files,
        *,
        state: Path | None,
        alpha: float,
        device: torch.device | str,
    ) -> Self:
        """As `open`, from files that lie anywhere."""
        known = files.read(state)
        x_dim, task_dim = (
            table.schema.field(name).type.list_size
            for table, name in ((known.features, "x"), (known.task_embeddings, "e"))
        )
        net = read_network(RatioNet, files.model, x_dim=x_dim, task_dim=task_dim)
        return cls(net, known, alpha=alpha, device=device)

    def pairs(
        self, users: Ids, items: Ids, *, unseen: bool = False, strict: bool = True
    ) -> pa.Table:
        """Read pairs: a row each, in their order.

        Args:
            users: (n,) ids.
            items: (n,) ids, of each user's item.
            unseen: leave out pairs that are known to have met.
            strict: refuse all for one id that is not known. Else such a pair has the verdict
                `unknown`, and no score.

        Raises:
            PipelineError: an id that is not known, or that is no id.
            ValueError: more users than items, or fewer.
        """
        if strict:
            table = self.catalogue.named(self._readings(*self.catalogue.pairs(users, items)))
        else:
            table = self._with_unknown(users, items)
        return next(unmet(iter([table]))) if unseen else table

    def grid(
        self, users: Ids | None = None, items: Ids | None = None, *, unseen: bool = False
    ) -> Iterator[pa.Table]:
        """Read every pair of users and items, each named once: a table an item; see `pairs`.

        None stands for all of them.
        """
        return map(self.catalogue.named, self._read(users, items, unseen=unseen))

    def best_users(
        self,
        items: Ids | None,
        n: int,
        *,
        users: Ids | None = None,
        lowest: bool = False,
        unseen: bool = False,
    ) -> pa.Table:
        """The `n` users most familiar with each item, best first.

        Args:
            items: ids; None: all.
            n: how many users of each.
            users: ids of those to choose from; None: all.
            lowest: take the least familiar instead.
            unseen: take none that the item is known to have met.

        Raises:
            PipelineError: an id that is not known, or that is no id.
        """
        return self._best("task", users, items, n, lowest=lowest, unseen=unseen)

    def best_items(
        self,
        users: Ids | None,
        n: int,
        *,
        items: Ids | None = None,
        lowest: bool = False,
        unseen: bool = False,
    ) -> pa.Table:
        """The `n` items most familiar to each user, best first; see `best_users`.

        A user's are together; users follow one another as in `users.names`.
        """
        return self._best("user", users, items, n, lowest=lowest, unseen=unseen)

    def explain(self, user: int | str, item: int | str, n: int = 3) -> pa.Table:
        """Take one score apart: the `n` items that speak most for it and against it, and the rest.

        Raises:
            PipelineError: an id that is not known, or that is no id.
        """
        (row,), (task,) = self.users.rows(user).tolist(), self.items.rows(item).tolist()
        parts = self._explainer.explain(row, task).table(n)
        return self.catalogue.explained(row, task, parts, self.known.items)

    @cached_property
    def _explainer(self) -> Explainer:
        known = self.known
        return Explainer.from_tables(
            self.net,
            known.features,
            known.tasks,
            known.task_embeddings,
            known.exposures,
            known.items,
        )

    def _read(self, users: Ids | None, items: Ids | None, *, unseen: bool) -> Iterator[pa.Table]:
        user, task = self.catalogue.product(users, items)
        tables = self.familiarity.grid(user, task) if len(task) else iter([self._nobody()])
        return unmet(tables) if unseen else tables

    def _readings(self, user: Ints, task: Ints) -> pa.Table:
        return self.familiarity.pairs(user, task) if len(user) else self._nobody()

    def _with_unknown(self, users: Ids, items: Ids) -> pa.Table:
        users, items = self.users.column(users), self.items.column(items)
        user, task, known = self.catalogue.found(users, items)
        named = self.catalogue.named(self._readings(user[known], task[known]))
        return self.catalogue.with_unknown(named, users, items, task=task, known=known)

    def _nobody(self) -> pa.Table:
        """Readings of no pair: their columns."""
        return next(self.familiarity.grid(np.zeros(0, np.int64), np.zeros(1, np.int64)))

    def _best(
        self,
        of: Literal["user", "task"],
        users: Ids | None,
        items: Ids | None,
        n: int,
        *,
        lowest: bool,
        unseen: bool,
    ) -> pa.Table:
        tables = self._read(users, items, unseen=unseen)
        return self.catalogue.named(pa.concat_tables(best(tables, n, of=of, lowest=lowest)))
