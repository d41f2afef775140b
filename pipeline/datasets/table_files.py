"""A user's own tables, CSV or Parquet, read fast and refused with the row of their first fault."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from pipeline.arrays import Bools, Ints
from pipeline.datasets.faults import first_repeat, shortened
from pipeline.errors import PipelineError
from pipeline.storage import read_parquet

NAMES = ("exposures", "users", "items", "features")
ENDINGS = (".csv", ".parquet")
TEXTS = {".csv": "CSV", ".tsv": "TSV"}
READABLE = (*TEXTS, ".parquet")
TEXT_COLUMNS = ("user_id", "item_id", "title", "genres")  # of a CSV: never guessed to be numbers
WHOLE = r"^-?[0-9]+$"
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
        if not (pa.types.is_string(column.type) or pa.types.is_integer(column.type)):
            raise self.wrong_type(name, "text", column.type)
        column = column.cast(pa.string())
        self.require_filled(name, column)
        return column

    def require_filled(self, name: str, column: pa.ChunkedArray) -> None:
        """Raise the fault of the first row without a text in the column `name`."""
        self.require(pc.fill_null(pc.not_equal(column, ""), False).to_numpy(), f"a {name}", column)

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


def find_tables(folder: Path) -> dict[str, Path]:
    """The tables NAME.csv and NAME.parquet of a folder, for each of NAMES that is there.

    Raises:
        PipelineError: no such folder, a name twice, or another table that may be misspelt or that
            has another ending.
    """
    if not folder.is_dir():
        raise PipelineError(
            f"{folder}: is no folder. data.tables_dir must name the one that holds your tables."
        )
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix not in ENDINGS:
            _require_no_table(path)
            continue
        if path.stem not in NAMES:
            raise PipelineError(
                f"{path}: is none of the tables {', '.join(NAMES)}; rename it or move it elsewhere."
            )
        if path.stem in found:
            raise PipelineError(f"{path}: there is {found[path.stem].name} too; keep one of them.")
        found[path.stem] = path
    return found


def _require_no_table(path: Path) -> None:
    """Raise PipelineError if a file or folder that is not read has the name of a table."""
    name, *endings = path.name.casefold().split(".")
    if name in NAMES and endings[-1:] != ["dvc"]:  # with it DVC notes what a table holds
        raise PipelineError(
            f"{path}: expected the table {name} as {name}.csv or {name}.parquet, found another "
            "ending. Convert, rename or move it."
        )


def read_own(path: Path, text_columns: Sequence[str] = TEXT_COLUMNS) -> OwnTable:
    """Read a CSV, TSV or Parquet file, its columns in plain types.

    Args:
        path: ends in .csv, .tsv or .parquet. In a TSV a quotation mark is a letter like any other.
        text_columns: columns of a CSV or TSV that are never guessed to be numbers.

    Raises:
        PipelineError: not such a file, no rows, or two columns of one name.
    """
    if path.suffix not in READABLE:
        raise PipelineError(
            f"{path}: expected a name that ends in .csv, .tsv or .parquet. Write the table to a "
            "file with such a name."
        )
    own = own_table(path, lambda: _read_whole(path, text_columns))
    if not own.table.num_rows:
        raise no_rows(path)
    return own


def own_table(path: Path, read: Callable[[], pa.Table], before: int = 0) -> OwnTable:
    """What `read` gives of a user's own file, its columns in plain types.

    Raises:
        PipelineError: it is not readable, or two columns have one name.
    """
    try:
        table = _in_plain_types(read())
    except FileNotFoundError:
        raise PipelineError(f"{path}: there is no such file; name another.") from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        kind = f"{TEXTS[path.suffix]} in UTF-8" if path.suffix in TEXTS else "Parquet"
        raise PipelineError(
            f"{path}: is not readable as {kind} ({' '.join(str(error).split())}). "
            "Mend it or write it again."
        ) from error
    if len(set(table.column_names)) < table.num_columns:
        raise PipelineError(
            f"{path}: expected distinct columns, found {', '.join(table.column_names)}. Rename one."
        )
    return OwnTable(path, table, before)


def no_rows(path: Path) -> PipelineError:
    """The error for a table without any row."""
    return PipelineError(f"{path}: expected at least one row, found none. Fill or remove it.")


def _read_whole(path: Path, text_columns: Sequence[str]) -> pa.Table:
    if path.suffix in TEXTS:
        with path.open("rb") as file:
            return parse_csv(path, file, text_columns)
    first, *others = [_in_plain_types(read_parquet(file)) for file in parquet_files(path)]
    return pa.concat_tables([first, *(other.select(first.column_names) for other in others)])


def parquet_files(path: Path) -> list[Path]:
    """The files of a table in Parquet, in the order of its rows: itself, or those in the folder.

    What begins with . or _ is passed over: so are called notes beside a table, and parts of one
    that are not whole yet.

    Raises:
        PipelineError: in the folder is no file, another folder or file, or files whose columns or
            types differ.
    """
    if not path.is_dir():
        return [path]
    files = sorted(one for one in path.iterdir() if not one.name.startswith((".", "_")))
    for file in files:
        if file.is_dir() or file.suffix != ".parquet":
            raise PipelineError(
                f"{file}: expected only files NAME.parquet in the folder {path.name}, found "
                f"{'a folder' if file.is_dir() else 'another ending'}. Move it elsewhere, or write "
                "the table again, not divided into folders."
            )
    if not files:
        raise no_rows(path)
    columns = [_columns(file) for file in files]
    for file, found in zip(files, columns, strict=True):
        if found != columns[0]:
            raise PipelineError(
                f"{file}: expected the columns {_listed(columns[0])}, as in {files[0].name}, found "
                f"{_listed(found)}. Write all files of the table with the same columns."
            )
    return files


def _columns(file: Path) -> dict[str, pa.DataType]:
    """The columns of a Parquet file and their plain types."""
    empty = own_table(file, lambda: pq.read_schema(file).empty_table()).table
    return dict(zip(empty.column_names, empty.schema.types, strict=True))


def _listed(columns: Mapping[str, pa.DataType]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in columns.items())


def parse_csv(
    path: Path, content: BinaryIO, text_columns: Sequence[str] = TEXT_COLUMNS, before: int = 0
) -> pa.Table:
    """The table that a CSV or TSV holds, or a run of its rows below its header.

    Args:
        path: of the file, which messages name.
        content: its bytes, read from the start.
        text_columns: columns that are never guessed to be numbers.
        before: rows of the file that come before these.

    Raises:
        ArrowException: it is not readable.
        PipelineError: the first line that is not UTF-8, or row of another number of fields.
    """
    _require_utf8(path, content, before)
    content.seek(0)
    types = dict.fromkeys(text_columns, pa.string())
    form = {"delimiter": "\t", "quote_char": False} if path.suffix == ".tsv" else {}
    bad: list[pacsv.InvalidRow] = []

    def note(row: pacsv.InvalidRow) -> str:
        bad.append(row)
        return "error"

    try:
        table = pacsv.read_csv(
            content,
            # One thread: only then does a bad row know its number.
            read_options=pacsv.ReadOptions(use_threads=False),
            parse_options=pacsv.ParseOptions(
                newlines_in_values=True, invalid_row_handler=note, **form
            ),
            convert_options=pacsv.ConvertOptions(column_types=types),
        )
    except pa.ArrowInvalid:
        if not bad:
            raise
        row = bad[0]
        raise OwnTable(path, pa.table({}), before).fault(
            row.number - 2, f"{row.expected_columns} fields", f"{row.actual_columns}: {row.text!r}"
        ) from None
    return table


def _require_utf8(path: Path, content: BinaryIO, before: int) -> None:
    """Raise PipelineError for the first line that is not UTF-8."""
    for number, line in enumerate(content, start=1):
        try:
            line.decode()
        except UnicodeDecodeError as error:
            raise PipelineError(
                f"{path}: line {before + number}: expected UTF-8 text, found the byte "
                f"0x{line[error.start]:02x}. Write the file in UTF-8."
            ) from error


def _in_plain_types(table: pa.Table) -> pa.Table:
    return table.cast(pa.schema([(field.name, _plain(field.type)) for field in table.schema]))


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type without what only storage knows of: dictionaries and large offsets."""
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    return kind


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
