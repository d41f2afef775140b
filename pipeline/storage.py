"""Tables as Parquet: one file, or a folder of parts; checked against a schema both ways."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.arrays import Singles
from pipeline.errors import PipelineError
from pipeline.files import missing, replacing
from pipeline.schemas import Schema

ROW_GROUP = 1 << 20  # rows of a Parquet file that are written together


def vectors(matrix: Singles) -> pa.FixedSizeListArray:
    """Arrow column of the rows of `matrix` (n, d), as fixed_size_list<float>[d]."""
    flat = pa.array(np.ascontiguousarray(matrix, np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, matrix.shape[1])


def matrix(column: pa.ChunkedArray) -> Singles:
    """The (n, d) float32 array of a fixed_size_list column, a writable copy."""
    flat = column.combine_chunks().flatten()
    values: Singles = flat.to_numpy(zero_copy_only=False).copy()
    return values.reshape(-1, column.type.list_size)


def write_table(table: pa.Table, path: Path, schema: Schema) -> None:
    """Check `table` against `schema` and write it as Parquet, equal tables as equal bytes."""
    schema.check(table, path)
    with replacing(path) as part, _writer(part, table.schema) as writer:
        _write_rows(writer, table)


def write_tables(tables: Iterable[pa.Table], path: Path, schema: Schema) -> int:
    """Write tables of the same columns one below another, as `write_table` would their whole.

    A row group of them is held at a time.

    Returns:
        The number of rows.

    Raises:
        PipelineError: the rows of a table, or of one after another, are not as the schema says.
    """
    rows = 0
    with replacing(path) as part, ExitStack() as exits:
        writer: pq.ParquetWriter | None = None
        for group in _checked(grouped(tables, ROW_GROUP), path, schema):
            if writer is None:
                writer = exits.enter_context(_writer(part, group.schema))
            _write_rows(writer, group)
            rows += group.num_rows
        if writer is None:
            raise schema.no_rows(path)
    return rows


def _write_rows(writer: pq.ParquetWriter, table: pa.Table) -> None:
    """Every row group as one chunk: where chunks end, pages do."""
    rows = table.replace_schema_metadata(None)
    for start in range(0, max(1, len(rows)), ROW_GROUP):
        writer.write_table(rows.slice(start, ROW_GROUP).combine_chunks(), ROW_GROUP)


def _checked(groups: Iterable[pa.Table], path: Path, schema: Schema) -> Iterator[pa.Table]:
    """The groups of rows of a table, each checked, and the order from one to the next."""
    last: pa.Table | None = None  # the last row so far
    before = 0  # rows
    for group in groups:
        schema.check(group, path, before)
        if last is not None:
            schema.check(pa.concat_tables([last, group.slice(0, 1)]), path, before - 1)
        last = group.slice(group.num_rows - 1)
        before += group.num_rows
        yield group


def grouped(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of so many each, the last one of fewer."""
    waiting: list[pa.Table] = []
    held = 0
    for table in tables:
        waiting.append(table)
        held += table.num_rows
        if held >= rows:
            whole = pa.concat_tables(waiting)
            cut = held - held % rows
            yield from (whole.slice(start, rows) for start in range(0, cut, rows))
            waiting, held = [whole.slice(cut)], held - cut
    if held:
        yield pa.concat_tables(waiting)


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    plain = [field.name for field in schema if pa.types.is_fixed_size_list(field.type)]
    plain_leaves = [f"{name}.list.element" for name in plain]
    return pq.ParquetWriter(
        path,
        schema.remove_metadata(),
        compression="zstd",
        use_dictionary=[name for name in schema.names if name not in plain],
        use_byte_stream_split=plain_leaves or False,
        write_page_checksum=True,
    )


def read_parquet(path: Path) -> pa.Table:
    """A Parquet file, or a folder of them in the order of their names, whatever its columns.

    Altered pages and text that is not UTF-8 are errors.

    Raises:
        ArrowException, OSError: the file is missing or damaged.
    """
    try:
        table = pq.read_table(path, page_checksum_verification=True)
        table.column_names  # noqa: B018 - decodes them, if reading has not yet done so
    except UnicodeDecodeError as error:
        raise pa.ArrowInvalid(f"a column's name is not UTF-8: {error}") from error
    table.validate(full=True)
    return table


def read_table(path: Path, schema: Schema) -> pa.Table:
    """Read a Parquet artefact, one file or a folder of parts, and check it against `schema`.

    The rows of parts are put into the order of the schema's key: the table is the same as if it
    were one file.
    """
    with _telling_what_is_unreadable(path):
        table = read_parquet(path)
    if path.is_dir() and set(schema.key) <= set(table.column_names):
        table = in_order(table, schema)
    schema.check(table, path)
    return table


def in_order(table: pa.Table, schema: Schema) -> pa.Table:
    """The rows in the order of the schema's key."""
    return table.sort_by([(name, "ascending") for name in schema.key])


@dataclass(frozen=True)
class RowGroups:
    """A Parquet artefact, one file or a folder of parts, whose row groups are read one by one.

    Each is checked against `schema`; they may be gone through again.
    """

    path: Path
    schema: Schema

    def require_columns(self) -> None:
        """Check the columns and their types, by the first row of each file."""
        for file in self._files():
            with _telling_what_is_unreadable(file):
                row = next(pq.ParquetFile(file).iter_batches(batch_size=1), None)
                empty = pq.read_schema(file).empty_table()
            self.schema.check(empty if row is None else pa.Table.from_batches([row]), file)

    def __iter__(self) -> Iterator[pa.Table]:
        for file in self._files():
            with _telling_what_is_unreadable(file):
                parquet = pq.ParquetFile(file, page_checksum_verification=True)
            if not parquet.num_row_groups:
                self.schema.check(parquet.schema_arrow.empty_table(), file)
            yield from _checked(_groups_of(parquet, file), file, self.schema)

    def _files(self) -> list[Path]:
        if not self.path.is_dir():
            return [self.path]
        if not (parts := sorted(self.path.glob("*.parquet"))):
            raise PipelineError(f"{self.path}: holds no Parquet file. Rebuild it with `dvc repro`.")
        return parts


def _groups_of(parquet: pq.ParquetFile, file: Path) -> Iterator[pa.Table]:
    for i in range(parquet.num_row_groups):
        with _telling_what_is_unreadable(file):
            group = parquet.read_row_group(i)
            group.validate(full=True)
        yield group


@contextmanager
def _telling_what_is_unreadable(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise missing(path) from None
    except (pa.ArrowException, OSError) as error:
        raise PipelineError(
            f"{path}: is not a readable Parquet file ({str(error).splitlines()[0]}).",
            "Delete it and run `dvc repro`.",
        ) from error
