"""What a person calls users, or items, and their rows: numbers, or text where a source has text."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.arrays import Bools, Ints
from pipeline.datasets.own_ids import Who, number_of, own_ids
from pipeline.datasets.own_table import PADDED, OwnTable
from pipeline.datasets.table_files import READABLE, read_own
from pipeline.errors import PipelineError
from pipeline.one_line import one_line
from pipeline.pairs import find

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
