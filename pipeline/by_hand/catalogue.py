"""The users and the items that can be asked for: from names to rows, and readings by name."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.arrays import Bools, Ints
from pipeline.by_hand.familiarity import VERDICTS
from pipeline.by_hand.naming import Ids, Names
from pipeline.pairs import ids_of, rows_of

UNKNOWN = "unknown"  # the verdict where there is none


@dataclass(frozen=True)
class Catalogue:
    """The users and the items that can be asked for; items are rows of the tasks table."""

    users: Names
    items: Names
    titles: pa.Array  # (M,)

    @classmethod
    def of(cls, features: pa.Table, tasks: pa.Table, users: pa.Table, items: pa.Table) -> Self:
        """From the tables: users with vectors, items that are tasks, and all there are."""
        item_ids = ids_of(tasks, "item_id")
        row = rows_of(item_ids, ids_of(items, "item_id"), "item")
        why_not = (
            f"it is no task; filter_tasks kept {len(item_ids):,} of {items.num_rows:,} items, see "
            "`tasks` in params.yaml"
        )
        return cls(
            Names.of("user", ids_of(features, "user_id"), users, "it has no vector x"),
            Names.of("item", item_ids, items, why_not),
            items.column("title").combine_chunks().take(pa.array(row)),
        )

    def product(self, users: Ids | None, items: Ids | None) -> tuple[Ints, Ints]:
        """Rows of the users and of the items named, each once; all where none are named."""
        return (
            np.arange(len(self.users.ids)) if users is None else _once(self.users.rows(users)),
            np.arange(len(self.items.ids)) if items is None else _once(self.items.rows(items)),
        )

    def pairs(self, users: Ids, items: Ids) -> tuple[Ints, Ints]:
        """Rows of the user and of the item of each pair."""
        return _of_one_length(self.users.rows(users), self.items.rows(items))

    def found(self, users: Ids, items: Ids) -> tuple[Ints, Ints, Bools]:
        """As `pairs`, one past the last row for whom cannot be asked for; and who is `known`."""
        user, task = _of_one_length(self.users.find(users), self.items.find(items))
        return user, task, (user < len(self.users.ids)) & (task < len(self.items.ids))

    def known(self, users: Ids, items: Ids) -> Bools:
        """Of which pairs (n,) the user and the item can both be asked for."""
        return self.found(users, items)[-1]

    def named(self, readings: pa.Table) -> pa.Table:
        """Readings by row as readings by name: user_id, item_id and title in place of rows."""
        task = readings.column("task")
        names = {
            "user_id": self.users.names.take(readings.column("user")),
            "item_id": self.items.names.take(task),
            "title": self.titles.take(task),
        }
        rest = readings.drop_columns(["user", "task"])
        return pa.table(names | dict(zip(rest.column_names, rest.columns, strict=True)))

    def with_unknown(
        self, readings: pa.Table, users: pa.Array, items: pa.Array, *, task: Ints, known: Bools
    ) -> pa.Table:
        """A row for every pair: readings by name of the known ones, in their order, or a verdict.

        Of the others all is null but the ids, the title of an item that is known, and the verdict
        `unknown`. `users` and `items` (n,) are as of `Names.column`, `task` and `known` (n,) as of
        `found`.
        """
        table = readings.take(pa.array(np.cumsum(known) - 1, mask=~known))
        verdict = table.column("verdict").cast(pa.string()).fill_null(UNKNOWN)
        code = pc.index_in(verdict, pa.array([*VERDICTS, UNKNOWN])).cast(pa.int8())
        columns = {
            "user_id": users,
            "item_id": items,
            "title": self.titles.take(pa.array(task, mask=task == len(self.titles))),
            "verdict": pa.DictionaryArray.from_arrays(
                code.combine_chunks(), pa.array([*VERDICTS, UNKNOWN])
            ),
        }
        every = dict(zip(table.column_names, table.columns, strict=True))
        return pa.table(every | columns)

    def explained(self, user: int, task: int, rows: pa.Table, items: pa.Table) -> pa.Table:
        """The parts of one score (`explanation.Explanation.table`) by name.

        Args:
            user: row.
            task: row.
            rows: the parts; items in them are rows of `items`.
            items: the items table.
        """
        n, item = rows.num_rows, rows.column("item").combine_chunks()
        called = "item_key" if "item_key" in items.column_names else "item_id"
        because = {
            "because_id": items.column(called).combine_chunks().take(item),
            "because": items.column("title").combine_chunks().take(item),
        }
        names = {
            "user_id": self.users.names.take(pa.array([user] * n)),
            "item_id": self.items.names.take(pa.array([task] * n)),
            "part": rows.column("part"),
        }
        figures = {name: rows.column(name) for name in ("likeness", "contribution")}
        return pa.table(names | because | figures)


def _of_one_length(user: Ints, task: Ints) -> tuple[Ints, Ints]:
    if len(user) != len(task):
        raise ValueError(
            f"users and items must be as many as there are pairs. Got {len(user):,} users and "
            f"{len(task):,} items."
        )
    return user, task


def _once(rows: Ints) -> Ints:
    """Each of the rows where it comes first."""
    _, first = np.unique(rows, return_index=True)
    return rows[np.sort(first)]
