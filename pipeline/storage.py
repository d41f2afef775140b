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
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import PipelineError
from pipeline.schemas import Schema

ROW_GROUP = 1 << 20  # rows of a Parquet file that are written together
Scalar = str | int | float | bool | None
Field: TypeAlias = Literal["number", "number or nan", "number or nothing", "text"]  # of a CSV


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path; on success it takes the place of `path`, on failure it is removed.

    Raises:
        PipelineError: the disk is full, or nothing may be written there.
    """
    part: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        os.close(handle)
        part = Path(name)
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.chmod(0o644)
        part.replace(path)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        raise PipelineError(
            f"{path}: cannot be written ({reason}); what was there is unchanged. "
            "Make room or give the permission, then run it again."
        ) from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


def write_bytes(content: bytes, path: Path) -> None:
    """Write `content` to `path` as a whole or not at all."""
    with replacing(path) as part:
        part.write_bytes(content)


def write_text(parts: Iterable[str], path: Path) -> None:
    """Write a text, part by part, to `path` as a whole or not at all."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.writelines(parts)


def vectors(matrix: npt.NDArray[np.float32]) -> pa.FixedSizeListArray:
    """Arrow column of the rows of `matrix` (n, d), as fixed_size_list<float>[d]."""
    flat = pa.array(np.ascontiguousarray(matrix, np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, matrix.shape[1])


def matrix(column: pa.ChunkedArray) -> npt.NDArray[np.float32]:
    """The (n, d) float32 array of a fixed_size_list column, a writable copy."""
    flat = column.combine_chunks().flatten()
    values: npt.NDArray[np.float32] = flat.to_numpy(zero_copy_only=False).copy()
    return values.reshape(-1, column.type.list_size)


def write_table(table: pa.Table, path: Path, schema: Schema) -> None:
    """Check `table` against `schema` and write it as Parquet, equal tables as equal bytes."""
    write_tables([table], path, schema)


def write_tables(tables: Iterable[pa.Table], path: Path, schema: Schema) -> None:
    """As `write_table`, of the tables one after the other; a row group of them is held at a time.

    Raises:
        PipelineError: the rows of a table, or of one after another, are not as the schema says.
    """
    with replacing(path) as part, ExitStack() as closing:
        writer: pq.ParquetWriter | None = None
        last: pa.Table | None = None  # the last row so far
        for group in grouped(tables, ROW_GROUP):
            schema.check(group, path)
            if writer is None:
                writer = closing.enter_context(_writer(part, group.schema))
            if last is not None:
                schema.check(pa.concat_tables([last, group.slice(0, 1)]), path)
            last = group.slice(group.num_rows - 1)
            writer.write_table(group.replace_schema_metadata(None))


def _writer(path: Path, columns: pa.Schema) -> pq.ParquetWriter:
    plain = [f.name for f in columns if pa.types.is_fixed_size_list(f.type)]
    plain_leaves = [f"{name}.list.element" for name in plain]
    return pq.ParquetWriter(
        path,
        columns.remove_metadata(),
        compression="zstd",
        use_dictionary=[f.name for f in columns if f.name not in plain],
        use_byte_stream_split=plain_leaves or False,
        write_page_checksum=True,
    )


def grouped(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Tables of one schema, put together until they have so many rows or more."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if sum(one.num_rows for one in waiting) >= rows:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def read_parquet(path: Path) -> pa.Table:
    """A Parquet file, whatever its columns; altered pages and text that is not UTF-8 are errors.

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
    """Read a Parquet artefact and check it against `schema`."""
    try:
        table = read_parquet(path)
    except FileNotFoundError:
        raise PipelineError(
            f"{path}: there is no such file. Build it with `dvc repro`, or name another."
        ) from None
    except (pa.ArrowException, OSError) as error:
        raise PipelineError(
            f"{path}: is not a readable Parquet file ({str(error).splitlines()[0]}). "
            "Delete it and run `dvc repro`."
        ) from error
    schema.check(table, path)
    return table


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
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
    except FileNotFoundError:
        raise PipelineError(
            f"{path}: there is no such file. Build it with `dvc repro`, or name another."
        ) from None
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


def read_history(path: Path) -> list[dict[str, str]]:
    """Read the losses of each epoch; where nothing was trained a history holds `epoch` alone.

    Raises:
        PipelineError: no such file, or another than a history.
    """
    figures: dict[str, Field] = dict.fromkeys(read_csv(path)[0], "number or nan")
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
    "number": lambda text: _is_number(text) and math.isfinite(float(text)),
    "number or nan": _is_number,
    "number or nothing": lambda text: not text or FIELDS["number"](text),
    "text": lambda text: True,
}


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
