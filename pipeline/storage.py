"""Artefacts on disk: Parquet tables, small JSON and CSV.

Every write goes to a temporary file beside its target, is flushed to the disk, and then renamed:
a reader finds the old file or the new one, never a part of either.
"""

import csv
import hashlib
import io
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.arrays import Singles
from pipeline.errors import PipelineError
from pipeline.schemas import Schema

Scalar = str | int | float | bool | None
ROW_GROUP = 1 << 20  # rows of a Parquet file that are written together
Field: TypeAlias = Literal[  # of a CSV
    "whole number", "number", "number or nan", "number or nothing", "text"
]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path; on success it takes the place of `path`, on failure it is removed.

    Raises:
        PipelineError: the disk is full, nothing may be written there, or what is there is a device
            or the like, which a file would take the place of.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise PipelineError(f"{path}: is a device or a pipe; name a file, which is then replaced.")
    part: Path | None = None
    try:
        with telling_of(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(
                dir=path.parent, prefix=f".{path.name}.", suffix=".part"
            )
            os.close(handle)
            part = Path(name)
            yield part
            with part.open("rb+") as file:
                os.fsync(file.fileno())
            part.chmod(0o666 & ~umask())
            part.replace(path)
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


def umask() -> int:
    """What the user takes from the permissions of new files."""
    (line,) = re.findall(r"^Umask:\s*([0-7]+)$", Path("/proc/self/status").read_text(), re.M)
    return int(line, 8)


@contextmanager
def telling_of(path: Path) -> Iterator[None]:
    """Turn what the system refuses while `path` is written into one line."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        raise PipelineError(
            f"{path}: cannot be written ({reason}); what was there is unchanged. "
            "Make room or give the permission, then run it again."
        ) from error


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Give an empty folder in `parent`, which is gone afterwards."""
    with telling_of(parent):
        parent.mkdir(parents=True, exist_ok=True)
        name = tempfile.mkdtemp(dir=parent, prefix=".scratch.", suffix=".part")
    try:
        yield Path(name)
    finally:
        shutil.rmtree(name, ignore_errors=True)


def write_bytes(content: bytes, path: Path) -> None:
    """Write `content` to `path` as a whole or not at all."""
    with replacing(path) as part:
        part.write_bytes(content)


def write_text(parts: Iterable[str], path: Path) -> None:
    """Write a text, part by part, to `path` as a whole or not at all."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.writelines(parts)


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
    return rows


def _write_rows(writer: pq.ParquetWriter, table: pa.Table) -> None:
    """Every row group as one chunk: where chunks end, pages do."""
    rows = table.replace_schema_metadata(None)
    for start in range(0, max(1, len(rows)), ROW_GROUP):
        writer.write_table(rows.slice(start, ROW_GROUP).combine_chunks(), ROW_GROUP)


def _checked(groups: Iterable[pa.Table], path: Path, schema: Schema) -> Iterator[pa.Table]:
    """The groups of rows of a table, each checked, and the order from one to the next."""
    last: pa.Table | None = None  # the last row so far
    for group in groups:
        schema.check(group, path)
        if last is not None:
            schema.check(pa.concat_tables([last, group.slice(0, 1)]), path)
        last = group.slice(group.num_rows - 1)
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
        return sorted(self.path.glob("*.parquet")) if self.path.is_dir() else [self.path]


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
        raise PipelineError(
            f"{path}: there is no such file. Build it with `dvc repro`, or name another."
        ) from None
    except (pa.ArrowException, OSError) as error:
        raise PipelineError(
            f"{path}: is not a readable Parquet file ({str(error).splitlines()[0]}). "
            "Delete it and run `dvc repro`."
        ) from error


def write_json(content: Mapping[str, object], path: Path) -> None:
    """Write JSON for git: keys in the given order, a final newline, no NaN."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    write_bytes(text.encode(), path)


def read_json(path: Path) -> dict[str, Any]:
    """Read what `write_json` wrote."""
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise PipelineError(
            f"{path}: there is no such file. Build it with `dvc repro`, or name another."
        ) from None
    except OSError as error:
        raise _damaged(path, f"cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise PipelineError(
            f"{path}: is not JSON ({error}). Delete it and run `dvc repro`."
        ) from error
    if not isinstance(content, dict):
        raise _damaged(path, "holds no names with values")
    return content


def write_csv(rows: Sequence[Mapping[str, Scalar]], path: Path) -> None:
    """Write rows that share their keys as CSV with a header; a missing value is an empty field."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(buffer.getvalue().encode(), path)


def read_csv(path: Path, columns: Mapping[str, Field] | None = None) -> list[dict[str, str]]:
    """Read what `write_csv` wrote: at least one row, every value as text.

    Args:
        path: of the file.
        columns: those that must be there, and what they hold in every row.

    Raises:
        PipelineError: no such file, or a damaged one; names the line.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, strict=True))
    except FileNotFoundError:
        raise PipelineError(
            f"{path}: there is no such file. Build it with `dvc repro`, or name another."
        ) from None
    except OSError as error:
        raise _damaged(path, f"cannot be read ({error.strerror})") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise _damaged(path, f"is not readable as CSV ({error})") from error
    if not rows:
        raise _damaged(path, "holds no rows")
    wanted = columns or {}
    if missing := [name for name in wanted if name not in rows[0]]:
        raise _damaged(path, f"lacks the column {', '.join(missing)}")
    for line, row in enumerate(rows, start=2):
        if None in row or None in row.values():  # more fields than names, or fewer
            raise _damaged(f"{path}:{line}", "has another number of fields than the first line")
        for name, kind in wanted.items():
            if not FIELDS[kind](row[name]):
                raise _damaged(f"{path}:{line}", f"expected a {kind} as {name}, found {row[name]}")
    return rows


def read_history(path: Path, *needs: str) -> list[dict[str, str]]:
    """Read the losses of each epoch; where nothing was trained a history holds `epoch` alone.

    Args:
        path: of the file.
        needs: further columns that must be there.

    Raises:
        PipelineError: no such file, or another than a history.
    """
    figures: dict[str, Field] = dict.fromkeys((*read_csv(path)[0], *needs), "number or nan")
    trained: dict[str, Field] = {} if len(figures) == 1 else {"valid_loss": "number"}
    return read_csv(path, figures | {"epoch": "number"} | trained)


def read_links(path: Path) -> list[dict[str, str]]:
    """Read how well triples were predicted; where there was no graph, their number alone.

    Raises:
        PipelineError: no such file, or another.
    """
    figures: dict[str, Field] = dict.fromkeys(read_csv(path)[0], "number or nan")
    made: dict[str, Field] = {} if len(figures) == 1 else {"relation": "text", "mrr": "number"}
    return read_csv(path, figures | {"triples": "number"} | made)


def _damaged(place: object, what: str) -> PipelineError:
    return PipelineError(f"{place}: {what}. Delete the file and run `dvc repro`.")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


FIELDS: Mapping[Field, Callable[[str], bool]] = {
    "whole number": lambda text: re.fullmatch(r"-?[0-9]{1,19}", text) is not None,
    "number": lambda text: _is_number(text) and math.isfinite(float(text)),
    "number or nan": _is_number,
    "number or nothing": lambda text: not text or FIELDS["number"](text),
    "text": lambda text: True,
}


def sha256(path: Path) -> str:
    """SHA-256, in hexadecimal, of a file's bytes; of a folder, of its files' names and bytes."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        told = [f"{file.relative_to(path).as_posix()} {sha256(file)}\n" for file in files]
        return hashlib.sha256("".join(told).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
