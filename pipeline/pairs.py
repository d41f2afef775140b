"""From tables of ids to arrays of rows: (user, task) pairs that a network can index by."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_array

from pipeline.arrays import Bools, Codes, Ints
from pipeline.errors import PipelineError


@dataclass(frozen=True)
class Pairs:
    """Distinct (user, task) pairs, in the order of the exposures table (by user, then item)."""

    user: Ints  # (E,) row of the user in the users table
    task: Ints  # (E,) row of the task in the tasks table
    held_out: Bools  # (E,) shown to nothing that learns

    def __len__(self) -> int:
        return len(self.user)

    def where(self, mask: Bools) -> "Pairs":
        """The pairs for which `mask` (E,) holds."""
        return Pairs(self.user[mask], self.task[mask], self.held_out[mask])


def ids_of(table: pa.Table, name: str) -> Ints:
    """A column of ids as an array."""
    ids: Ints = table.column(name).to_numpy()
    return ids


def called(table: pa.Table, who: str, row: int) -> object:
    """What their owner calls the user, or the item, of a row: the text, where ids are text."""
    key = f"{who}_key"
    return table.column(key if key in table.column_names else f"{who}_id")[row].as_py()


def find(values: Codes, known: Codes) -> Ints:
    """Row of each value in the sorted array `known`; its length, one past the last, if not in it.

    Example:
        >>> find(np.array([7, 3, 4]), np.array([3, 7])).tolist()
        [1, 0, 2]
    """
    row = np.searchsorted(known, values)
    if not len(known):
        return row
    last = len(known) - 1
    return np.where(known[np.minimum(row, last)] == values, row, len(known))


def rows_of(ids: Ints, known: Ints, what: str) -> Ints:
    """Row of each of `ids` in the sorted array `known`.

    Raises:
        PipelineError: an id that is not among `known`, which usually means swapped files.
    """
    rows = find(ids, known)
    wrong = np.flatnonzero(rows == len(known))
    if len(wrong):
        raise unknown(what, int(ids[wrong[0]]), len(known), len(wrong))
    return rows


def by_user_and_item(user: Ints, item: Ints) -> Ints:
    """The order of pairs (n,) by user, then item; equal pairs stand together, in no order.

    One key where both ids, int64, fit into 63 bits together: it sorts several times as fast as two.
    """
    if not len(user):
        return np.zeros(0, np.int64)
    users, items = (int(ids.max()) - int(ids.min()) + 1 for ids in (user, item))
    if users * items >= 1 << 63:
        order: Ints = np.lexsort((item, user))
        return order
    return np.argsort((user - user.min()) * items + (item - item.min()))


def unknown(what: str, first: int, known: int, rows: int) -> PipelineError:
    """The error for `rows` rows with an id, the first of them `first`, not among `known` ones."""
    return PipelineError(
        f"{what} {first} is not among the {known:,} known ones "
        f"({rows:,} such rows); the files do not belong together: run `dvc repro`."
    )


def shown(exposures: pa.Table) -> pa.Table:
    """The exposures that may be learned from: all but the held-out ones."""
    held_out = exposures.column("held_out").to_numpy()
    return exposures.filter(pa.array(~held_out)) if held_out.any() else exposures


def exposure_matrix(exposures: pa.Table, users: Ints, items: Ints) -> csr_array:
    """1 where a user was exposed to an item, (U, I); rows and columns are those of the sorted ids.

    Raises:
        PipelineError: an exposure of, or to, something that is not among them.
    """
    user = rows_of(ids_of(exposures, "user_id"), users, "user")
    item = rows_of(ids_of(exposures, "item_id"), items, "item")
    ones = np.ones(len(user), np.float32)
    return csr_array((ones, (user, item)), shape=(len(users), len(items)))


def task_pairs(exposures: pa.Table, users: pa.Table, tasks: pa.Table) -> Pairs:
    """The exposures to items that are tasks, as rows of `users` and `tasks`."""
    task = find(ids_of(exposures, "item_id"), ids_of(tasks, "item_id"))
    kept = task < tasks.num_rows
    user = rows_of(ids_of(exposures, "user_id")[kept], ids_of(users, "user_id"), "user")
    return Pairs(user, task[kept], exposures.column("held_out").to_numpy()[kept])


def split_rows(splits: pa.Table, users: pa.Table, name: str) -> Ints:
    """Rows in `users` of the users of split `name` (train, valid or test), rising.

    Raises:
        PipelineError: none, or one who is not among `users`.
    """
    chosen = splits.column("split").to_numpy(zero_copy_only=False) == name
    if not chosen.any():
        raise PipelineError(
            f"none of the {len(chosen):,} users of the splits table is in the split {name}; "
            "make it again: `dvc repro prepare`."
        )
    return rows_of(ids_of(splits, "user_id")[chosen], ids_of(users, "user_id"), "user")


def in_rows(values: Ints, rows: Ints, n: int) -> Bools:
    """Which of `values` (each below n) are among `rows`."""
    member = np.zeros(n, bool)
    member[rows] = True
    inside: Bools = member[values]
    return inside
