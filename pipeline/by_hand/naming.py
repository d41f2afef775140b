"""What a person calls users and items, and their rows: numbers, or text where a source has text."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.arrays import Bools, Ints
from pipeline.by_hand.familiarity import VERDICTS
from pipeline.datasets.own_ids import Who, number_of, own_ids
from pipeline.datasets.own_table import PADDED, OwnTable
from pipeline.datasets.table_files import READABLE, read_own
from pipeline.errors import PipelineError
from pipeline.one_line import one_line
from pipeline.pairs import find, ids_of, rows_of

UNKNOWN = "unknown"  # the verdict where there is none
SHOWN = 5  # names in a message
FIRST, LAST = -(2**63), 2**63 - 1  # of 64 bits
Ids = npt.ArrayLike  # one id, or several: numbers, or text where a source has text
Listed = Sequence[int | str]


@dataclass(frozen=True)
class Names:
    """The users, or the items, that can be asked for.

    Attributes:
        who: which of the two.
        ids: (n,) rising.
        names: (n,) what each is called: its id, or a text.
        others: ids that are known too, but cannot be asked for.
        why_not: why they cannot.
    """

    who: Who
    ids: Ints
    names: pa.Array
    others: Ints
    why_not: str

    @classmethod
    def of(cls, who: Who, ids: Ints, table: pa.Table, why_not: str = "") -> Self:
        """Name the `ids` (n,) among those of the users or items table.

        Names are the column user_key or item_key where there is one, else the ids themselves.
        """
        known = table.column(f"{who}_id").to_numpy()
        names = pa.array(ids)
        if f"{who}_key" in table.column_names:
            rows = pa.array(np.searchsorted(known, ids))
            names = table.column(f"{who}_key").combine_chunks().take(rows)
        return cls(who, ids, names, np.setdiff1d(known, ids), why_not)

    @property
    def are_text(self) -> bool:
        """Whether names are text."""
        return bool(pa.types.is_string(self.names.type))

    def typed(self, wanted: str) -> Listed:
        """The ids in `wanted`: separated by commas, or the path of a table of them.

        Raises:
            PipelineError: something that is no id, or a faulty table.
        """
        path = Path(wanted)
        if path.suffix in READABLE:
            return self.in_table(read_own(path))
        if self.are_text:
            return self._texts(wanted)
        names = [name.strip() for name in wanted.split(",")]
        if wrong := [name for name in names if not name.removeprefix("-").isdecimal()]:
            raise PipelineError(
                f"--{self.who}s: expected whole numbers separated by commas, or a .csv, .tsv or "
                f".parquet file with a column {self.who}_id; found {wrong[0]!r}."
            )
        if padded := [name for name in names if re.match(PADDED, name)]:
            raise PipelineError(
                f"--{self.who}s: {padded[0]} has a zero before it, and ids are whole numbers here; "
                f"write {int(padded[0])} if you mean that."
            )
        return [int(name) for name in names]

    def in_table(self, own: OwnTable) -> Listed:
        """The ids in the column user_id or item_id of a table.

        Raises:
            PipelineError: a row without an id, or no such column.
        """
        ids: Listed = own_ids(own, self.who, text_ids=self.are_text).columns[-1].to_pylist()
        return ids

    def rows(self, ids: Ids) -> Ints:
        """Rows of ids, (n,).

        Raises:
            PipelineError: one that is not known, or that is no id (`listed`).
        """
        numbers = self._numbers(ids)
        rows = find(numbers, self.ids)
        refused = rows == len(self.ids)
        if not refused.any():
            return rows
        no_use = np.isin(numbers, self.others)
        first = int(np.argmax(refused))
        called = self._called(ids, refused & (no_use == no_use[first]))
        if no_use[first]:
            raise PipelineError(f"{called}: {self.why_not}.")
        every = sorted(self.names.to_pylist())  # ids of text rise by their hashes
        *some, last = (one_line(str(name)) for name in (*every[:SHOWN], every[-1]))
        raise PipelineError(
            f"{called} is not known; the {len(self.ids):,} that can be asked for "
            f"are {', '.join(some)}, ... up to {last}."
        )

    def find(self, ids: Ids) -> Ints:
        """Rows of ids, (n,); one past the last row for whom cannot be asked for.

        Raises:
            PipelineError: one that is no id (`listed`).
        """
        return find(self._numbers(ids), self.ids)

    def known(self, ids: Ids) -> Listed:
        """Those of ids that can be asked for, in their order."""
        names = self.listed(ids)
        known = self.find(names) < len(self.ids)
        return [name for name, is_known in zip(names, known.tolist(), strict=True) if is_known]

    def why_unknown(self, ids: Ids) -> list[str]:
        """Who of ids cannot be asked for, and why: a line for every reason."""
        numbers = self._numbers(ids)
        refused, no_use = find(numbers, self.ids) == len(self.ids), np.isin(numbers, self.others)
        reasons = ((refused & ~no_use, " is not known"), (refused & no_use, f": {self.why_not}"))
        return [f"{self._called(ids, of)}{why}" for of, why in reasons if of.any()]

    def column(self, ids: Ids) -> pa.Array:
        """Ids as a column like `names`, known or not.

        Raises:
            PipelineError: one that is no id (`listed`).
        """
        return pa.array(self.listed(ids) if self.are_text else self._numbers(ids), self.names.type)

    def listed(self, ids: Ids) -> Listed:
        """Ids one by one, in Python's own types.

        Raises:
            PipelineError: one that is of another kind than theirs, or a number beyond 64 bits.
        """
        names: Listed = np.atleast_1d(np.asarray(ids, object)).tolist()
        kind, expected = (str, "text") if self.are_text else (Integral, "whole numbers")
        if wrong := [name for name in names if not isinstance(name, kind)]:
            raise self._no_id(wrong[0], expected)
        if self.are_text:
            return names
        numbers = [int(name) for name in names]
        if beyond := [number for number in numbers if not FIRST <= number <= LAST]:
            raise self._no_id(beyond[0], "whole numbers from -2^63 to 2^63 - 1")
        return numbers

    def _no_id(self, found: object, expected: str) -> PipelineError:
        return PipelineError(
            f"{self.who}s: ids are {expected} here; found {found!r}. Name them as your own "
            "data does."
        )

    def _texts(self, wanted: str) -> list[str]:
        """The texts in a list; one with a comma, or a space at an end, may itself be a name."""
        names = wanted.split(",")
        asked, known = self._numbers([wanted, *names]), np.append(self.ids, self.others)
        whole, *each = np.isin(asked, known).tolist()
        if whole:
            return [wanted]
        return [name if own else name.strip() for name, own in zip(names, each, strict=True)]

    def _numbers(self, ids: Ids) -> Ints:
        """The numbers of ids, (n,): of texts those that stand for them."""
        if not self.are_text:
            whole = _whole(ids)
            return np.array(self.listed(ids), np.int64) if whole is None else whole
        texts = self.listed(ids)
        number = {text: number_of(str(text)) for text in dict.fromkeys(texts)}
        return np.array([number[text] for text in texts], np.int64)

    def _called(self, ids: Ids, which: Bools) -> str:
        """The first of `ids` (n,) for which `which` (n,) holds, and how many others."""
        names = self.listed(ids)
        called = list(dict.fromkeys(names[at] for at in np.flatnonzero(which).tolist()))
        name = one_line(str(called[0]))
        name = name.encode(errors="backslashreplace").decode()  # it may be no UTF-8
        more = f" (and {len(called) - 1:,} more)" if len(called) > 1 else ""
        return f"{self.who} {name}{more}"


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


def _whole(ids: Ids) -> Ints | None:
    """An array or a column of whole numbers that 64 bits hold, (n,); None of all else.

    Copied, so that no answer changes with it.
    """
    if not hasattr(ids, "__array__"):
        return None
    numbers = np.atleast_1d(np.asarray(ids))
    if numbers.ndim > 1 or not np.can_cast(numbers.dtype, np.int64):
        return None
    return numbers.astype(np.int64)


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
