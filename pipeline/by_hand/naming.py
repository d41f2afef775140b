"""What a person calls users and items, and their rows: numbers, or text where a source has text."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa

from pipeline.arrays import Ints
from pipeline.datasets.own_ids import Who, number_of, own_ids
from pipeline.datasets.own_table import PADDED, OwnTable
from pipeline.datasets.table_files import READABLE, read_own
from pipeline.errors import PipelineError
from pipeline.one_line import one_line
from pipeline.pairs import find, ids_of, rows_of

SHOWN = 5  # names in a message


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

    def rows(self, wanted: str) -> Ints:
        """Rows of the names in `wanted`: separated by commas, or the path of a table of them.

        Raises:
            PipelineError: a name that is not known, or a faulty table.
        """
        path = Path(wanted)
        if path.suffix in READABLE:
            return self.rows_in(read_own(path))
        if self.are_text:
            names = self._listed(wanted)
            return self._rows(_numbers_of(names), names)
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
        numbers = [max(min(int(name), 2**63 - 1), -(2**63)) for name in names]
        return self._rows(np.array(numbers, np.int64), names)

    def rows_in(self, own: OwnTable) -> Ints:
        """Rows of the column user_id or item_id of a table.

        Raises:
            PipelineError: a name that is not known, or no such column.
        """
        ids = own_ids(own, self.who, text_ids=self.are_text)
        return self._rows(ids.column(0).to_numpy(), ids.columns[-1].to_pylist())

    def _listed(self, wanted: str) -> list[str]:
        """The texts in a list; one with a comma, or a space at an end, may itself be a name."""
        names = wanted.split(",")
        asked, known = _numbers_of([wanted, *names]), np.append(self.ids, self.others)
        whole, *each = np.isin(asked, known).tolist()
        if whole:
            return [wanted]
        return [name if own else name.strip() for name, own in zip(names, each, strict=True)]

    def _rows(self, ids: Ints, called: list[str]) -> Ints:
        rows = find(ids, self.ids)
        refused = rows == len(self.ids)
        if not refused.any():
            return rows
        first, known = int(np.argmax(refused)), np.isin(ids, self.others)
        alike = np.flatnonzero(refused & (known == known[first]))
        others = len({called[at] for at in alike.tolist()}) - 1
        name = one_line(str(called[first]))
        name = name.encode(errors="backslashreplace").decode()  # it may be no UTF-8
        more = f" (and {others:,} more)" if others else ""
        if known[first]:
            raise PipelineError(f"{self.who} {name}{more}: {self.why_not}.")
        names = sorted(self.names.to_pylist())  # ids of text rise by their hashes
        *some, last = (one_line(str(name)) for name in (*names[:SHOWN], names[-1]))
        raise PipelineError(
            f"{self.who} {name}{more} is not known; the {len(self.ids):,} that can be asked for "
            f"are {', '.join(some)}, ... up to {last}."
        )


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

    def product(self, users: str | None, items: str | None) -> tuple[Ints, Ints]:
        """Rows of the users and of the items named, each once; all where none are named."""
        return (
            np.arange(len(self.users.ids)) if users is None else _once(self.users.rows(users)),
            np.arange(len(self.items.ids)) if items is None else _once(self.items.rows(items)),
        )

    def pairs(self, own: OwnTable) -> tuple[Ints, Ints]:
        """Rows of the user and of the item of each row of a table of pairs."""
        return self.users.rows_in(own), self.items.rows_in(own)

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


def _numbers_of(names: list[str]) -> Ints:
    return np.array([number_of(name) for name in names], np.int64)


def _once(rows: Ints) -> Ints:
    """Each of the rows where it comes first."""
    _, first = np.unique(rows, return_index=True)
    return rows[np.sort(first)]
