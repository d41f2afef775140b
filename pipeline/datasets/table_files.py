"""The files of a user's own tables, CSV, TSV or Parquet: found, read fast, or refused."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from pipeline.datasets.own_table import OwnTable
from pipeline.errors import PipelineError
from pipeline.storage import read_parquet

NAMES = ("exposures", "users", "items", "features")
ENDINGS = (".csv", ".parquet")
TEXTS = {".csv": "CSV", ".tsv": "TSV"}
READABLE = (*TEXTS, ".parquet")
TEXT_COLUMNS = ("user_id", "item_id", "title", "genres")  # of a CSV: never guessed to be numbers


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


def read_own(
    path: Path, text_columns: Sequence[str] = TEXT_COLUMNS, *, may_be_empty: bool = False
) -> OwnTable:
    """Read a CSV, TSV or Parquet file, its columns in plain types.

    Args:
        path: ends in .csv, .tsv or .parquet. In a TSV a quotation mark is a letter like any other.
        text_columns: columns of a CSV or TSV that are never guessed to be numbers.
        may_be_empty: whether it may have no rows.

    Raises:
        PipelineError: not such a file, no rows, or two columns of one name.
    """
    if path.suffix not in READABLE:
        raise PipelineError(
            f"{path}: expected a name that ends in .csv, .tsv or .parquet. Write the table to a "
            "file with such a name."
        )
    own = open_own(path, lambda: _read_whole(path, text_columns))
    if not (own.table.num_rows or may_be_empty):
        raise no_rows(path)
    return own


def open_own(path: Path, read: Callable[[], pa.Table], before: int = 0) -> OwnTable:
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
    empty = open_own(file, lambda: pq.read_schema(file).empty_table()).table
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
