"""A user's own table, whose columns are checked, and refused with the row of their first fault."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.arrays import Bools, Ints
from pipeline.datasets.faults import first_repeat, shortened, with_article
from pipeline.errors import PipelineError

WHOLE = r"^-?[0-9]+$"
PADDED = r"^-?0[0-9]"  # a number that would lose zeros before it
MOMENT = "seconds since 1970 or a date such as 2024-01-31 12:00:00"
YEAR_3000 = 32_503_680_000  # in seconds since 1970
LATE = "Divide milliseconds by 1,000; leave empty what is not known."
MENDING = "Mend or remove the row."
APART = "Two numbers from there on may be one float; write them as whole numbers or text."
NAMING = "Name the columns so; a CSV has them in its first line, separated by commas."


@dataclass(frozen=True)
class OwnTable:
    """A table and the file it was read from, which every message names.

    Rows in messages count from 1, without the header of a CSV.

    Attributes:
        path: of the file.
        table: its rows, or some of them that follow one another.
        before: rows of the file that come before these.
    """

    path: Path
    table: pa.Table
    before: int = 0

    def fault(
        self, row: int, expected: str, found: object, mending: str = MENDING
    ) -> PipelineError:
        """The error for row `row` (from 0)."""
        place = f"{self.path}, row {self.before + row + 1}"
        return PipelineError(f"{place}: expected {expected}, found {shortened(found)}. {mending}")

    def wrong_type(self, name: str, wanted: str, found: pa.DataType) -> PipelineError:
        """The error for a column of a type that is of no use."""
        return PipelineError(
            f"{self.path}: expected {wanted} in the column {name}, found {found}. "
            "Convert or remove the column."
        )

    def require(
        self, good: Bools, expected: str, found: pa.ChunkedArray, mending: str = MENDING
    ) -> None:
        """Raise the fault of the first row not `good` (n,), showing its value in `found`."""
        if not good.all():
            row = int(np.argmin(good))
            raise self.fault(row, expected, repr(found[row].as_py()), mending)

    def require_columns(self, *names: str, mending: str = NAMING) -> None:
        """Raise PipelineError unless the table has the columns `names`."""
        missing = [name for name in names if name not in self.table.column_names]
        if missing:
            raise PipelineError(
                f"{self.path}: expected a column {', '.join(missing)}, found "
                f"{', '.join(map(_quoted, self.table.column_names))}. {mending}"
            )

    def require_distinct(self, keys: Ints, what: str) -> None:
        """Raise the fault of the first row whose key (n,) an earlier row has."""
        if (rows := first_repeat(keys)) is not None:
            earlier, later = rows
            raise self.fault(later, f"each {what} once", f"that of row {earlier + 1} again")

    def numbers(self, name: str, mending: str = MENDING) -> pa.ChunkedArray:
        """A column of whole numbers, as int64; what is missing stays missing."""
        column = self.table.column(name)
        if pa.types.is_string(column.type):
            good = pc.and_(pc.match_substring_regex(column, WHOLE), _fit(column))
        elif pa.types.is_uint64(column.type):
            good = pc.less(column, pa.scalar(2**63, pa.uint64()))
        elif pa.types.is_integer(column.type) or pa.types.is_null(column.type):
            return column.cast(pa.int64())
        elif pa.types.is_floating(column.type):
            return self._numbers_of_floats(name, column, mending)
        else:
            raise self.wrong_type(name, "whole numbers", column.type)
        mask = pc.fill_null(good, True).to_numpy()
        if not mask.all():
            expected = _whole_number(column[int(np.argmin(mask))].as_py())
            self.require(mask, f"{expected} as {name}", column, mending)
        return column.cast(pa.int64())

    def _numbers_of_floats(
        self, name: str, column: pa.ChunkedArray, mending: str
    ) -> pa.ChunkedArray:
        """Whole numbers kept as floats, as pandas does where some are missing."""
        bits = np.finfo(column.type.to_pandas_dtype()).nmant + 1
        column = column.cast(pa.float64())
        whole = pc.and_(pc.is_finite(column), pc.equal(column, pc.round(column)))
        self.require(
            pc.fill_null(whole, True).to_numpy(), f"a whole number as {name}", column, mending
        )
        exact = pc.fill_null(pc.less(pc.abs(column), 2.0**bits), True).to_numpy()
        expected = f"a whole number between -2^{bits} and 2^{bits} as {name}"
        self.require(exact, expected, column, APART)
        return column.cast(pa.int64())

    def text(self, name: str) -> pa.ChunkedArray:
        """A column of text; whole numbers count as their digits."""
        column = self.table.column(name)
        if not len(column):  # whatever type an empty table was written with
            return column.cast(pa.string())
        if not (pa.types.is_string(column.type) or pa.types.is_integer(column.type)):
            raise self.wrong_type(name, "text", column.type)
        column = column.cast(pa.string())
        self.require_filled(name, column)
        return column

    def require_filled(self, name: str, column: pa.ChunkedArray) -> None:
        """Raise the fault of the first row without a text in the column `name`."""
        filled = pc.fill_null(pc.not_equal(column, ""), False).to_numpy()
        self.require(filled, with_article(name), column)

    def seconds(self, name: str) -> pa.ChunkedArray:
        """A column of moments as seconds since 1970: such numbers, or dates, in UTC if unsaid."""
        column = self.table.column(name)
        if pa.types.is_date(column.type):
            column = column.cast(pa.timestamp("s"))
        if pa.types.is_timestamp(column.type):
            whole = pa.timestamp("s", column.type.tz)
            moments = column.cast(whole, safe=False).cast(pa.int64())
        elif pa.types.is_string(column.type):
            each = [self._moment(row, value) for row, value in enumerate(column.to_pylist())]
            moments = pa.chunked_array([pa.array(each, pa.int64())])
        else:
            moments = self.numbers(name)
        early = pc.fill_null(pc.less(moments, YEAR_3000), True).to_numpy()
        shown = column.cast(pa.string()) if pa.types.is_temporal(column.type) else column
        self.require(early, f"a moment before the year 3000 as {name}", shown, LATE)
        return moments

    def require_moments(self, name: str, seconds: pa.ChunkedArray) -> None:
        """Raise the fault of the first of a column's `seconds` if all are dates, such as 20240131.

        As seconds they would be of August and September 1970.
        """
        given = seconds.drop_null()
        for some in (given[:1], given):  # where they are no dates, the first is none
            if not like_a_date(some.to_numpy()).all():
                return
        if len(given) and not pa.types.is_temporal(self.table.column(name).type):
            row = pc.index(seconds.is_valid(), True).as_py()
            raise self.fault(row, f"{MOMENT} as {name}", given[0], "Write dates as 2024-01-31.")

    def _moment(self, row: int, value: str | None) -> int | None:
        try:
            return _seconds(value) if value else None
        except ValueError:
            raise self.fault(row, f"{MOMENT} as timestamp", repr(value)) from None


def like_a_date(number: Ints) -> Bools:
    """Which numbers (n,) may be dates from 1900 to 2100, by their digits; a Spark column too.

    Example:
        >>> like_a_date(np.array([20240131, 20241301])).tolist()
        [True, False]
    """
    in_year, in_month = number % 10_000, number % 100
    dates: Bools = (number >= 1900_00_00) & (number < 2101_00_00)
    return dates & (in_year >= 1_00) & (in_year < 13_00) & (in_month >= 1) & (in_month <= 31)


def _fit(digits: pa.ChunkedArray) -> pa.ChunkedArray:
    """Which texts of digits are numbers that 64 bits hold."""
    number = pc.ascii_ltrim(digits, "-0")
    length = pc.binary_length(number)
    largest = pc.if_else(pc.starts_with(digits, "-"), str(2**63), str(2**63 - 1))
    as_long = pc.and_(pc.equal(length, pc.binary_length(largest)), pc.less_equal(number, largest))
    return pc.or_(pc.less(length, pc.binary_length(largest)), as_long)


def _whole_number(found: object) -> str:
    """What was expected where `found` is no whole number, or one beyond 64 bits."""
    beyond = isinstance(found, int) or re.fullmatch(WHOLE, str(found))
    return "a whole number from -2^63 to 2^63 - 1" if beyond else "a whole number"


def _quoted(name: str) -> str:
    """A name of a column, in quotes where spaces around it would be overlooked."""
    return name if name == name.strip() else repr(name)


def _seconds(value: str) -> int:
    """Seconds since 1970: of such a number, or of a date, in UTC if it does not say.

    Raises:
        ValueError: it is neither, or does not fit into 64 bits.
    """
    if not value.isdecimal():
        moment = datetime.fromisoformat(value)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    if (seconds := int(value)) >= 2**63:
        raise ValueError(f"{value} is beyond 64 bits.")
    return seconds
